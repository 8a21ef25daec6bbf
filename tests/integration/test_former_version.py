"""A database of the former version: its rows are read as they were meant, and its campaigns go on."""

import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import psycopg
import pytest

from dispatcher.domain.attempt import write_key
from dispatcher.domain.audit import AuditActor
from dispatcher.domain.errors import NotFound
from dispatcher.domain.history import explain_history
from dispatcher.domain.postback import PostbackMark, PostbackState
from dispatcher.domain.results import Disposition as D
from dispatcher.domain.results import Result
from dispatcher.embedded import Servers
from dispatcher.store import PostgresStore
from dispatcher.store.migrate import migrate
from tests.conftest import opened
from tests.factories import apply, dial, expired, number, states, tick, update

FORMER = Path(__file__).parents[1] / "data" / "former"
SPRING, WINTER, OVER, PURGED, ABORTED = range(1, 6)
"""Its campaigns."""


@pytest.fixture(params=[path.stem for path in sorted(FORMER.glob("*.sql"))])
def former_url(servers: Servers, request: pytest.FixtureRequest) -> Iterator[str]:
    """A database with the former version's rows, brought to our schema."""
    name = f"former_{uuid.uuid4().hex[:12]}"
    url = servers.database_url.replace("/postgres?", f"/{name}?")
    with psycopg.connect(servers.database_url, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}".encode())
        migrate(url, request.param)
        with psycopg.connect(url) as rows:
            rows.execute("SET session_replication_role = replica")  # no trigger asks how such a row came about
            rows.execute((FORMER / f"{request.param}.sql").read_bytes())
        migrate(url)
        yield url
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


@pytest.fixture
async def former(former_url: str) -> AsyncIterator[PostgresStore]:
    async with opened(former_url) as store:
        yield store


async def told(store: PostgresStore, i: int) -> str:
    history = await store.history(await store.campaign(SPRING), number(i))
    assert history
    return "\n".join(text for _, text in explain_history(history))


async def test_its_counters_are_read(former: PostgresStore) -> None:
    spring = await former.campaign(SPRING)
    status = await former.status(spring)
    assert await states(former, spring) == {
        "CALLBACK": 3, "DNC": 1, "DNC DNC": 1, "DUP": 1, "FINISHED LA": 1, "INVALID": 1, "READY": 2, "SELECTED": 4
    }  # fmt: skip
    assert (status.redials, status.requeues) == ({"BUSY": 1, "NO_ANS": 1}, {"THROTTLE": 1, "VETO": 1})
    assert status.permits == 11


async def test_its_history_is_explained(former: PostgresStore) -> None:
    assert "RESULT, LA, they said FINISHED/LA, their call c0; final" in await told(former, 1)
    assert "dialled again by rule [retry.BUSY]" in await told(former, 2)
    assert "put back, not charged: THROTTLE" in await told(former, 8)
    assert "NOT_SENT, VETO; put back, not charged" in await told(former, 9)
    assert "screened: DNC (LIST default)" in await told(former, 12)
    with pytest.raises(NotFound, match="was purged"):
        await former.history(await former.campaign(PURGED), number(31))


async def test_its_open_calls_go_on(former: PostgresStore) -> None:
    """Its worker is gone; a postback comes for one call, another one waits for its provider, and one is redialled."""
    await apply(former, *await expired(former))
    assert await apply(former, update("0000000000006", D.FINAL_SUCCESS, Result.LA)) == ["Finish"]
    while over := await former.long_overdue(1, 100):
        await apply(former, *over)
    while over := await former.long_overdue(2, 100):
        await apply(former, *over)
    _, (postback,) = await former.take_postbacks(10)
    await former.settle((), (), None, [PostbackMark(postback.id, PostbackState.IGNORED)])
    assert await former.verify() == []
    await tick(former)
    spring = await former.campaign(SPRING)
    keys = tuple(write_key(2**60 + i) for i in range(10))
    assert {number(3), number(8), number(11)} <= {row.e164 for row in await dial(former, spring, keys=keys)}


async def test_what_a_person_decided_holds(former: PostgresStore) -> None:
    assert not await former.reopen_account(3)
    assert await former.reopen_account(3, actor=AuditActor.OPERATOR)
    assert {entry.list for entry in await former.dnc_check(number(12))} == {"default"}
    assert {entry.list for entry in await former.dnc_check("+19005550100")} == {"national"}
    assert (await former.campaign(WINTER)).reason == "config (CODE 301)"
    assert await states(former, await former.campaign(ABORTED)) == {"READY": 1, "SELECTED": 1}
    assert await states(former, await former.campaign(OVER)) == {"FINISHED AM": 1}
