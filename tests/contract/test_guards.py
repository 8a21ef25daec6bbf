"""What the program must never do, the database refuses: by anybody's hand."""

from itertools import product

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import create_engine

from dispatcher.domain.errors import Refused
from dispatcher.domain.results import Disposition as D
from dispatcher.domain.results import Result
from dispatcher.domain.states import FINAL, LEGAL_MOVES, Actor, State
from dispatcher.store import PostgresStore
from dispatcher.store.dnc_tables import metadata
from dispatcher.store.migrate import migrate
from dispatcher.store.schema import REVISION
from tests.factories import apply, dial, make_campaign, number, update


async def force(store: PostgresStore, statement: str) -> None:
    async with store.db.transaction() as tx:
        await tx.connection.execute(statement.encode())


async def test_the_trigger_knows_the_same_moves_as_the_domain(postgres: PostgresStore) -> None:
    await make_campaign(postgres, [number(1)])
    allowed = set()
    for before, after, actor in product(State, State, Actor):
        if before is after:
            continue
        try:
            async with postgres.db.transaction() as tx:
                await tx.connection.execute("SET LOCAL session_replication_role = replica")
                await tx.connection.execute(place(before, "loader"))
                await tx.connection.execute("SET LOCAL session_replication_role = origin")
                await tx.connection.execute(place(after, actor))
                allowed.add((before, after, actor))
                raise Undo
        except (Refused, Undo):
            continue
    assert allowed == LEGAL_MOVES


class Undo(Exception):
    pass


def place(state: State, actor: str) -> bytes:
    finished = "now()" if state in FINAL else "NULL"
    return (
        f"UPDATE destination SET state = '{state}', moved_by = '{actor}', reason = 'x', "
        f"result = 'LA', finished_at = {finished}"
    ).encode()


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE destination SET e164 = '+12025550999'",
        "UPDATE destination SET campaign_id = campaign_id + 1",
        "UPDATE destination SET line = line + 1",
        "UPDATE destination SET permits = 0, dials = 0",
        "UPDATE destination SET fence = 0",
        "UPDATE destination SET permits = 21",
        "UPDATE destination SET dials = permits + 1",
        "UPDATE destination SET retry_owner = 'PROVIDER'",
        "DELETE FROM destination",
        "UPDATE open_attempt SET permit_at = now()",
        "UPDATE open_attempt SET phase = 'INTENT'",
        "UPDATE open_attempt SET permit_at = NULL",
        "UPDATE open_attempt SET e164 = '+12025550999'",
        "UPDATE open_attempt SET key = '0000000000000'",
        "INSERT INTO open_attempt SELECT * FROM open_attempt",
        "UPDATE attempt SET e164 = '+12025550999'",
        "DELETE FROM attempt",
        "UPDATE audit SET actor = 'nobody'",
        "DELETE FROM audit",
        "INSERT INTO destination (part, campaign_id, load_id, line, raw, channel, e164, state) "
        "SELECT part, campaign_id, load_id, 99, raw, channel, e164, 'READY' FROM destination",
        "INSERT INTO destination (part, campaign_id, load_id, line, raw, channel, e164, state) "
        "SELECT part, campaign_id, load_id, 99, raw, channel, '911', 'READY' FROM destination",
    ],
)
async def test_what_the_database_refuses(postgres: PostgresStore, statement: str) -> None:
    campaign = await make_campaign(postgres, [number(1)], retry={"BUSY": {"delays": ["1ms"]}})
    (row,) = await dial(postgres, campaign)
    await apply(postgres, update(row.key, D.RETRYABLE, Result.BUSY))
    await dial(postgres, campaign)
    with pytest.raises(Refused):
        await force(postgres, statement)


async def test_two_open_attempts_for_one_person_cannot_be(postgres: PostgresStore) -> None:
    campaign = await make_campaign(postgres, [number(1)])
    await dial(postgres, campaign)
    copy = (
        "INSERT INTO open_attempt SELECT (jsonb_populate_record(o, "
        '\'{"key": "0000000000000", "destination_id": 999}\')).* FROM open_attempt AS o'
    )
    with pytest.raises(Refused, match="channel"):
        await force(postgres, copy)


def test_the_tables_are_as_described(database_url: str) -> None:
    engine = create_engine(database_url)
    with engine.connect() as connection:
        context = MigrationContext.configure(
            connection,
            opts={"include_object": lambda item, name, kind, *_: kind != "index" and "_0" not in (name or "")},
        )
        assert compare_metadata(context, metadata) == []
    engine.dispose()


def test_migrating_twice_is_once(database_url: str) -> None:
    assert migrate(database_url) == (REVISION, REVISION)
