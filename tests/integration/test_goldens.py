"""What outsiders hold: documents, exit codes, names, log fields. `pytest --record-goldens` writes the files anew.

A difference is a change for somebody who reads our JSON, our CSV or our logs, or has typed our commands into a script.
"""

import ast
import asyncio
import json
import logging
import re
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
import typer.main
from pydantic import BaseModel

from config.logging import JsonLines
from config.settings import Settings
from dispatcher.bootstrap import Urls, make_celery
from dispatcher.cli.lazy import LazyCommand
from dispatcher.cli.main import app as cli
from dispatcher.domain.campaign import Policy
from dispatcher.domain.results import Disposition as D
from dispatcher.domain.results import Result, UpdateSource
from dispatcher.queues import QUEUE_OF, Queue, TaskName
from dispatcher.store import PostgresStore
from tests.factories import FILE, apply, dial, number, tick, update
from tests.integration.conftest import Type

ROOT = Path(__file__).parents[2]
GOLDENS = ROOT / "tests" / "data" / "goldens"
Check = Callable[[str, Any], None]

_PLAIN = (
    (re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d[.\d]*(\+\d\d:?\d\d|Z)?"), "<time>"),
    (re.compile(r"\b[0-9a-f]{64}\b"), "<digest>"),
    (re.compile(r"/tmp/[^\s'\",]*"), "<path>"),
    (re.compile(r"\b[0-9][0-9a-z]{12}\b"), "<key>"),
    (re.compile(r"127\.0\.0\.1:\d+"), "<address>"),
)
_CHANGING = {"key", "version", "rate", "clock_off_s"}
"""Fields whose value is another each time."""


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Check:
    """Compare with the file of that name, or write it."""

    def check(name: str, found: Any) -> None:
        path = GOLDENS / f"{name}.json"
        text = json.dumps(plain(found), indent=1, ensure_ascii=False, sort_keys=True) + "\n"
        if request.config.getoption("--record-goldens"):
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)
        assert path.read_text() == text

    return check


def plain(found: Any) -> Any:
    """Without what is another each time."""
    if isinstance(found, Mapping):
        return {str(k): "<any>" if k in _CHANGING and v is not None else plain(v) for k, v in found.items()}
    if isinstance(found, list | tuple):
        return [plain(x) for x in found]
    if isinstance(found, datetime):
        return "<time>"
    if not isinstance(found, str):
        return found
    for pattern, placeholder in _PLAIN:
        found = pattern.sub(placeholder, found)
    return found


class Typist:
    """Types commands and notes what a script sees of them."""

    def __init__(self, typed: Type) -> None:
        self._typed = typed
        self.seen: list[dict[str, Any]] = []

    def __call__(self, *words: str, lines: int | None = None) -> None:
        """`lines`: how many of the output belong to the interface, as a header does."""
        code, out, _ = self._typed(*words)
        said: dict[str, Any] = {"typed": " ".join(words), "exit": code}
        if "--json" in words and out:
            said["json"] = json.loads(out)
        elif lines is not None:
            said["lines"] = out.splitlines()[:lines]
        self.seen.append(said)


def ring(database_url: str) -> None:
    """One person is reached, one is busy and to be called again, one call is not answered for yet."""

    async def work() -> None:
        store = PostgresStore(database_url)
        await store.open()
        try:
            campaign = await store.campaign(1)
            await tick(store)
            rows = await dial(store, campaign, 3)
            call: dict[str, Any] = {"provider_call_id": "c-1", "raw_state": "FINISHED", "raw_result": "LA"}
            await apply(store, *(update(row.key, D.IN_FLIGHT, source=UpdateSource.SUBMIT) for row in rows))
            await apply(store, update(rows[0].key, D.FINAL_SUCCESS, Result.LA, **call))
            await apply(store, update(rows[1].key, D.RETRYABLE, Result.BUSY))
            await tick(store)
        finally:
            await store.close()

    asyncio.run(work())


@pytest.mark.usefixtures("campaign")
def test_commands(typed: Type, golden: Check, tmp_path: Path, database_url: str) -> None:
    people = "".join(f"{number(i)},Ada\n" for i in range(1, 6))
    (tmp_path / "people.csv").write_text(f"phone,name\n{people}n/a,Bob\n{number(1)},Eve\n")
    (tmp_path / "listed.txt").write_text(f"{number(4)}\n")
    (tmp_path / "postback.json").write_text('{"events": []}')
    type_ = Typist(typed)
    for words in (
        "account list --json",
        "campaign create c.toml --request-id r --json",
        "campaign load 1 people.csv --dry-run --json",
        "campaign load 1 people.csv --rejects rejects.csv --json",
        "campaign load 1 people.csv --rejects again.csv --json",
        f"dnc add {number(5)} --json",
        "dnc import listed.txt --list national --source registry --json",
        "dnc import listed.txt --list national --source registry --json",
        "dnc list --json",
        f"dnc check {number(4)} --json",
        f"dnc check {number(9)} --json",
        "campaign start 1 --json",
        "campaign status 1 --json",
    ):
        type_(*words.split())
    ring(database_url)
    for words in (
        "campaign status 1 --json",
        f"explain 1 {number(1)} --json",
        f"explain 1 {number(2)} --json",
        f"explain 1 {number(4)} --json",
        "export 1 --format jsonl --out rows.jsonl",
        "export 1 --out rows.csv",
        "provider read callfire postback.json --json",
        "campaign pause 1 --json",
        "campaign resume 1 --json",
        "campaign abort 1 --json",
        "campaign list --json",
        "campaign purge 1",
        "campaign purge 1 --confirm spring --json",
        "verify --json",
        "campaign status 9 --json",
        "campaign pause 1 --json",
        "campaign load 1 nothing.csv --json",
        "campaign unknown",
    ):
        type_(*words.split())
    type_("dnc", "list", "national", lines=2)
    files = {name: (tmp_path / name).read_text().splitlines() for name in ("rejects.csv", "rows.csv", "rows.jsonl")}
    golden("commands", {"seen": type_.seen, "files": files})
    golden("stored", list(stored(database_url)))


STORED = (
    "SELECT DISTINCT 'attempt.step', step FROM attempt",
    "SELECT DISTINCT 'attempt.phase', phase FROM attempt",
    "SELECT DISTINCT 'attempt.disposition', disposition FROM attempt",
    "SELECT DISTINCT 'destination.state', state FROM destination",
    "SELECT DISTINCT 'destination.moved_by', moved_by FROM destination",
    "SELECT DISTINCT 'destination.reason', reason FROM destination",
    "SELECT DISTINCT 'counter', measure || ' ' || label FROM"
    " (SELECT measure, label FROM counter UNION SELECT measure, label FROM counter_delta) AS x",
    "SELECT DISTINCT 'audit', actor || ' ' || act FROM audit",
)


def stored(database_url: str) -> Iterator[tuple[str, str]]:
    """The words that rows of the journey hold: a later version reads them."""
    with psycopg.connect(database_url) as connection:
        for query in STORED:
            yield from sorted((what, word) for what, word in connection.execute(query.encode()) if word is not None)


async def test_http(api: httpx.AsyncClient, golden: Check) -> None:
    seen = []

    async def ask(method: str, path: str, **how: Any) -> None:
        answer = await api.request(method, path, **how)
        kind = answer.headers.get("content-type", "")
        body = answer.json() if "json" in kind else answer.text
        seen.append({"asked": f"{method} {path}", "status": answer.status_code, "type": kind, "body": body})

    key = {"Idempotency-Key": "k"}
    people = f"phone,name\n{number(1)},Ada\nn/a,Bob\n".encode()
    await ask("POST", "/campaigns", json=FILE, headers=key)
    await ask("POST", "/campaigns", json=FILE, headers=key)
    await ask("POST", "/campaigns", json={**FILE, "regions_allowed": []}, headers={"Idempotency-Key": "l"})
    await ask("POST", "/campaigns", json=FILE)
    await ask("POST", "/campaigns/1/loads", content=people)
    await ask("POST", "/campaigns/1/loads", content=people)
    await ask("POST", "/campaigns/1/loads", content=b"\x89PNG")
    await ask("POST", "/campaigns/1/loads", content=b"x" * (2 << 20))
    await ask("GET", "/campaigns/1/loads/1/rejects")
    await ask("GET", "/campaigns/1/loads/9/rejects")
    for verb in ("start", "pause", "resume", "abort", "resume"):
        await ask("POST", f"/campaigns/1/{verb}")
    await ask("GET", "/campaigns/1/status")
    await ask("GET", "/campaigns/9/status")
    await ask("GET", "/campaigns/x/status")
    await ask("GET", "/campaigns/1/status", headers={"Authorization": "Bearer wrong"})
    await ask("DELETE", "/campaigns/1")
    root = "http://test"
    for path in ("/healthz", "/readyz", "/docs"):
        await ask("GET", f"{root}{path}")
    await ask("POST", f"{root}/hooks/none/1/x", content=b"{}")
    await ask("GET", f"{root}/hooks/none/1/x")
    golden("http", seen)


def test_names(golden: Check) -> None:
    """Commands and their options, tasks, queues, settings, keys of a campaign file."""
    beat = make_celery(Urls("", "redis://x")).conf.beat_schedule
    golden(
        "names",
        {
            "commands": dict(commands(typer.main.get_command(cli), "dispatcher")),
            "tasks": {str(task): str(QUEUE_OF[task]) for task in TaskName},
            "queues": [str(queue) for queue in Queue],
            "beat": {name: str(entry["task"]) for name, entry in beat.items()},
            "settings": sorted(fields(Settings)),
            "campaign file": sorted(fields(Policy)),
        },
    )


def commands(command: Any, path: str) -> Iterator[tuple[str, list[str]]]:
    """Each command with its arguments and options."""
    if isinstance(command, LazyCommand):
        command = command.load()
    if hasattr(command, "list_commands"):
        children = {name: command.get_command(None, name) for name in command.list_commands(None)}
        for name, child in sorted(children.items()):
            yield from commands(child, f"{path} {name}")
    else:
        yield path, sorted(word for param in command.params for word in (*param.opts, *param.secondary_opts))


def fields(model: type[BaseModel], before: str = "") -> Iterator[str]:
    """Names of settings and keys, with those inside them."""
    for name, field in model.model_fields.items():
        yield f"{before}{field.alias or name}"
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            yield from fields(inner, f"{before}{field.alias or name}.")


def test_logs(golden: Check) -> None:
    """Every message with its fields; and the fields that each line has."""
    line = json.loads(JsonLines().format(logging.makeLogRecord({"msg": "x", "own": 1})))
    golden("logs", {"line": sorted(line), "messages": sorted(logged())})


LEVELS = {"debug", "info", "warning", "error", "exception", "critical"}


def logged() -> Iterator[tuple[str, str, list[str]]]:
    """Level, message and names of fields, read from the sources."""
    for path in sorted(p for room in ("dispatcher", "tasks", "config") for p in (ROOT / room).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in LEVELS):
                continue
            if not (isinstance(node.func.value, ast.Name) and node.func.value.id == "log"):
                continue
            said = ast.unparse(node.args[0])
            extra = next((k.value for k in node.keywords if k.arg == "extra"), None)
            names = (
                [ast.unparse(k).strip("'") if k else "**" for k in extra.keys] if isinstance(extra, ast.Dict) else []
            )
            yield node.func.attr, said, sorted(names)
