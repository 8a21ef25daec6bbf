"""The audit names who did it; and invariants that look at histories see every kind of result."""

import pytest

from dispatcher.domain.audit import AuditActor
from dispatcher.domain.dnc import DncAdd, DncListRef
from dispatcher.domain.results import Disposition as D
from dispatcher.domain.results import Result
from dispatcher.store import PostgresStore
from tests.factories import apply, dial, make_campaign, number, update


async def audited(store: PostgresStore, act: str) -> list[str]:
    async with store.db.transaction() as tx:
        cursor = await tx.connection.execute("SELECT actor FROM audit WHERE act = %s ORDER BY id", [act])
        return [row["actor"] for row in await cursor.fetchall()]


@pytest.mark.parametrize("actor", AuditActor)
async def test_an_addition_to_a_list_names_its_actor(postgres: PostgresStore, actor: AuditActor) -> None:
    await postgres.dnc_add(DncAdd(numbers=(number(1),), list="l", source="s"), actor=actor)
    await postgres.dnc_remove([number(1)], DncListRef(list="l"), actor=actor)
    assert await audited(postgres, "dnc.added") == await audited(postgres, "dnc.removed") == [str(actor)]


@pytest.mark.parametrize("result", [Result.LA, Result.AM, Result.XFER, Result.SD, Result.DNC, Result.SENT])
async def test_the_invariant_sees_that_somebody_who_was_reached_was_dialled_again(
    postgres: PostgresStore, result: Result
) -> None:
    campaign = await make_campaign(postgres, [number(1)], retry={"BUSY": {"delays": ["1ms"]}})
    (row,) = await dial(postgres, campaign)
    await apply(postgres, update(row.key, D.RETRYABLE, Result.BUSY))
    await dial(postgres, campaign)
    assert await postgres.verify() == []
    async with postgres.db.transaction() as tx:
        await tx.connection.execute("SET LOCAL session_replication_role = replica")
        await tx.connection.execute("UPDATE attempt SET result = %s, step = 'Finish'", [str(result)])
    assert [v.invariant[:3] for v in await postgres.verify()] == ["I11"]
