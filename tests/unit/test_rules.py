"""Rules that matter are tests: who may import whom, sizes, and words that must not occur."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import dispatcher
from dispatcher.store.queries import statements

ROOT = Path(dispatcher.__file__).parents[1]
SOURCES = sorted(p for room in ("config", "dispatcher", "tasks") for p in (ROOT / room).rglob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("*.py"))
SQL = sorted((ROOT / "dispatcher/store/sql").glob("*.sql"))

JOINED = {"domain", "ports", "flow", "providers", "store", "limits", "sources", "broker", "queues", "embedded"}
MAY_IMPORT: dict[str, set[str]] = {
    "config": set(),
    "dispatcher": {"domain"},
    "queues": set(),
    "simulator": set(),
    "domain": set(),
    "ports": {"domain"},
    "flow": {"domain", "ports"},
    "providers": {"domain"},
    "store": {"domain"},
    "limits": {"domain"},
    "sources": {"domain"},
    "broker": {"domain", "queues"},
    "embedded": {"config", "domain"},
    "bootstrap": JOINED | {"config"},
    "web": {"domain", "ports", "flow", "bootstrap", "config", "queues"},
    "cli": {
        "dispatcher",
        "domain",
        "ports",
        "flow",
        "bootstrap",
        "config",
        "queues",
        "embedded",
        "sources",
        "simulator",
    },
    "__main__": {"cli"},
    "tasks": {"broker", "domain", "ports", "flow", "bootstrap", "config", "queues"},
}


def room_of(module: str) -> str | None:
    """The room of a module name; None when it is not ours."""
    head, _, rest = module.partition(".")
    if head in ("config", "tasks"):
        return head
    if head != "dispatcher":
        return None
    room = rest.partition(".")[0]
    return room if room in MAY_IMPORT else "dispatcher"


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def imports_of(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module if node.module != "dispatcher" else "dispatcher.__init__"


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_follow_the_table(path: Path) -> None:
    here = room_of(module_of(path))
    assert here is not None
    found = {room_of(name) for name in imports_of(path)} - {None, here}
    assert found <= MAY_IMPORT[here], f"{here} may not import {found - MAY_IMPORT[here]}"


@pytest.mark.parametrize("path", SOURCES + TESTS, ids=lambda p: str(p.relative_to(ROOT)))
def test_files_and_functions_are_short(path: Path) -> None:
    text = path.read_text()
    assert text.count("\n") <= 400
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert (node.end_lineno or 0) - node.lineno < 50, f"{node.name} is longer than 50 lines"


def calls_of(path: Path) -> set[str]:
    return {ast.unparse(node) for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Attribute)}


@pytest.mark.parametrize("path", sorted((ROOT / "dispatcher/flow").glob("*.py")), ids=lambda p: p.name)
def test_the_journey_can_run_under_a_virtual_clock(path: Path) -> None:
    names = set(imports_of(path))
    assert not names & {"time", "uuid", "random", "datetime.datetime", "asyncio"}
    assert not calls_of(path) & {"asyncio.sleep", "asyncio.create_task", "datetime.now", "datetime.utcnow"}


@pytest.mark.parametrize("path", sorted((ROOT / "dispatcher/domain").glob("*.py")), ids=lambda p: p.name)
def test_the_domain_is_pure(path: Path) -> None:
    pure = {
        "__future__",
        "bisect",
        "collections",
        "dataclasses",
        "datetime",
        "enum",
        "functools",
        "hashlib",
        "hmac",
        "json",
        "math",
        "re",
    }
    pure |= {"typing", "zoneinfo", "itertools", "orjson", "phonenumbers", "pydantic", "pyroaring", "dispatcher"}
    assert {name.partition(".")[0] for name in imports_of(path)} <= pure
    assert not calls_of(path) & {"datetime.now", "datetime.utcnow"}


def test_only_one_module_speaks_http_outwards() -> None:
    clients = {"httpx", "aiohttp", "httpx_aiohttp"}
    speaking = [p for p in SOURCES if clients & {name.partition(".")[0] for name in imports_of(p)}]
    assert [module_of(p) for p in speaking] == ["dispatcher.providers.http"]


def test_the_broker_is_no_schedule() -> None:
    banned = re.compile(r"\b(eta|countdown)\s*=|self\.retry\(|autoretry_for|\.retry\(")
    assert [p.name for p in SOURCES if banned.search(p.read_text())] == []


def test_vendor_words_stay_with_the_providers() -> None:
    allowed = {"providers", "simulator", "cli"}
    found = [p for p in SOURCES if re.search("callfire|fortytwo|phonon", p.read_text(), re.IGNORECASE)]
    # comments in the domain name the document that a word comes from
    found = [p for p in found if room_of(module_of(p)) not in allowed | {"domain"}]
    assert [module_of(p) for p in found] == []


def test_task_shells_are_short() -> None:
    for path in (ROOT / "tasks/campaigns.py", ROOT / "tasks/dial.py", ROOT / "tasks/upkeep.py"):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.FunctionDef):
                assert (node.end_lineno or 0) - node.lineno < 10


def test_every_statement_is_named_once_and_used() -> None:
    code = "\n".join(p.read_text() for p in SOURCES)
    for path in SQL:
        names = re.findall(r"^-- (\S.*) --$", path.read_text(), re.MULTILINE)
        assert len(set(names)) == len(names)
        assert list(statements(path.stem)) == names
        if path.stem != "verify":
            assert [n for n in names if f'"{path.stem}.{n}"' not in code] == []


def test_the_public_face() -> None:
    public = {name for name in vars(dispatcher) if not name.startswith("_")} - {
        room for room in vars(dispatcher) if type(getattr(dispatcher, room)).__name__ == "module"
    }
    assert set(dispatcher.__all__) == public | {"__version__"}


@pytest.mark.parametrize("path", SQL, ids=lambda p: p.name)
def test_sql_holds_no_number_of_a_policy(path: Path) -> None:
    """Durations and limits are parameters; a LIMIT of one asks for the first."""
    code = re.sub(r"--.*", "", path.read_text())
    assert re.findall(r"interval '(?!0')[^']*'|LIMIT (?!1\b)\d+|make_interval\(\w+ => \d|tries [<>]=? \d", code) == []
