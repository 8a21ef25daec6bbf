"""A purge: what a campaign that is over has loaded and dialled is deleted; counts, loads and audit still answer."""

import asyncio
from datetime import timedelta
from typing import Any

import psycopg
import pytest

from dispatcher.domain.audit import AuditActor
from dispatcher.domain.campaign import Campaign, CampaignState
from dispatcher.domain.dnc import DncAdd
from dispatcher.domain.errors import NotAllowed, NotFound, Refused, ServerError
from dispatcher.domain.postback import RawPostback
from dispatcher.domain.results import Disposition as D
from dispatcher.domain.results import Result
from dispatcher.store import PostgresStore, loads
from tests.factories import apply, dial, due_work, exported, make_account, make_campaign, number, states, update

PEOPLE = [number(i) for i in range(6)]


@pytest.fixture(params=[0, 1], ids=["shared part", "own part"])
def own(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    monkeypatch.setattr(loads, "OWN_PART_FROM", 3 if request.param else 1000)
    return bool(request.param)


async def over(store: PostgresStore) -> tuple[Campaign, list[str]]:
    """A campaign that is DONE, and the keys of its attempts."""
    campaign = await make_campaign(store, PEOPLE)
    assert await due_work(store, campaign)
    rows = await dial(store, campaign, 10)
    await apply(store, *[update(row.key, D.FINAL_SUCCESS, Result.LA) for row in rows])
    assert await store.finish_campaign(campaign.id)
    return await store.campaign(campaign.id), [row.key for row in rows]


async def count(store: PostgresStore, table: str) -> int:
    async with store.db.transaction() as tx:
        cursor = await tx.connection.execute(f"SELECT count(*) AS n FROM {table}".encode())
        (row,) = await cursor.fetchall()
    return int(row["n"])


@pytest.mark.usefixtures("own")
async def test_what_is_deleted_and_what_is_kept(postgres: PostgresStore) -> None:
    campaign, keys = await over(postgres)
    other = await make_campaign(postgres, [number(9)], await postgres.account(campaign.account_id), name="other")
    before = await postgres.status(campaign)
    await postgres.purge_campaign(campaign, actor=AuditActor.OPERATOR)
    assert [await count(postgres, t) for t in ("destination", "attempt", "attempt_ref")] == [1, 0, 0]
    purged = await postgres.campaign(campaign.id)
    assert purged.purged_at
    after = await postgres.status(purged)
    assert (after.state_counts, after.permits, after.loads) == (before.state_counts, before.permits, before.loads)
    assert await apply(postgres, update(keys[0], D.FINAL_FAILURE, Result.NO_ANS)) == []
    assert await exported(postgres, other)
    assert await postgres.verify() == []
    await postgres.purge_campaign(purged, actor=AuditActor.OPERATOR)  # again
    assert await count(postgres, "audit WHERE act = 'campaign.purged'") == 1
    for answer in (postgres.find_load(purged, 1), postgres.history(purged, number(1)), exported(postgres, purged)):
        with pytest.raises(NotFound, match="was purged on"):
            await answer


@pytest.mark.usefixtures("own")
async def test_workers_that_know_the_part_go_on(postgres: PostgresStore) -> None:
    """Another process has the purged partition among those in which it looks first."""
    campaign, _ = await over(postgres)
    account = await postgres.account(campaign.account_id)
    other = await make_campaign(postgres, [number(7), number(8)], account, name="other")
    await postgres.purge_campaign(campaign, actor=AuditActor.OPERATOR)
    assert await due_work(postgres, other)
    (row, *_) = await dial(postgres, other, 1)
    assert await apply(postgres, update(row.key, D.FINAL_SUCCESS, Result.LA)) == ["Finish"]
    assert await states(postgres, other) == {"FINISHED LA": 1, "READY": 1}


@pytest.mark.usefixtures("own")
async def test_nothing_that_still_lives_is_purged(postgres: PostgresStore) -> None:
    campaign = await make_campaign(postgres, PEOPLE)
    with pytest.raises(NotAllowed, match="is RUNNING; only"):
        await postgres.purge_campaign(campaign, actor=AuditActor.OPERATOR)
    (row,) = await dial(postgres, campaign, 1)
    campaign = await postgres.move_campaign(campaign.id, CampaignState.ABORTED, actor=AuditActor.OPERATOR)
    for done in (False, True):
        with pytest.raises(NotAllowed, match="still being ended; purge it again"):
            await postgres.purge_campaign(campaign, actor=AuditActor.OPERATOR)
        if not done:
            await apply(postgres, update(row.key, D.FINAL_SUCCESS, Result.LA))
    assert await count(postgres, "destination") == len(PEOPLE)
    for moved in (await postgres.upkeep()).moved:
        await postgres.abort_waiting(moved, 100)
    await postgres.purge_campaign(campaign, actor=AuditActor.OPERATOR)
    assert await count(postgres, "destination") == 0
    for _ in range(2):  # what was counted late notices it once more
        for moved in (await postgres.upkeep()).moved:
            await postgres.abort_waiting(moved, 100)
    await postgres.dnc_add(DncAdd(numbers=(number(1),), list="l", source="s"))
    left = [c for c in await postgres.campaigns() if not c.purged_at]
    assert left == []


async def test_no_row_is_deleted_before_its_campaign_is_purged(postgres: PostgresStore) -> None:
    await over(postgres)
    for table in ("destination", "attempt"):
        with pytest.raises(Refused, match="never deleted before their campaign is purged"):
            async with postgres.db.transaction() as tx:
                await tx.connection.execute(f"DELETE FROM {table}".encode())


async def test_a_purge_that_waits_for_an_export_holds_up_nobody_and_is_done_again(
    postgres: PostgresStore, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loads, "OWN_PART_FROM", 3)
    campaign, _ = await over(postgres)
    account = await postgres.account(campaign.account_id)
    async with await psycopg.AsyncConnection.connect(database_url) as reader:
        await reader.execute(f"SELECT count(*) FROM destination_{campaign.part}".encode())
        purging = asyncio.create_task(postgres.purge_campaign(campaign, actor=AuditActor.OPERATOR))
        await asyncio.sleep(0.5)
        other = await asyncio.wait_for(make_campaign(postgres, [number(8)], account, name="other"), timeout=3)
        assert await asyncio.wait_for(dial(postgres, other, 1), timeout=3)
        assert not purging.done()
        with pytest.raises(ServerError, match="something still reads destinations"):
            await purging
    campaign = await postgres.campaign(campaign.id)
    await postgres.purge_campaign(campaign, actor=AuditActor.OPERATOR)
    assert await count(postgres, "destination") == 1


async def test_bodies_of_old_postbacks_are_emptied_and_replays_still_known(postgres: PostgresStore) -> None:
    account = await make_account(postgres)

    def raw(body: bytes) -> RawPostback:
        return RawPostback(account_id=account.id, content_type="text/plain", body=body, source_ip="::1")

    async def query(sql: str) -> list[dict[str, Any]]:
        async with postgres.db.transaction() as tx:
            return await (await tx.connection.execute(sql.encode())).fetchall()

    await postgres.save_postbacks([raw(b"old"), raw(b"waits")])
    await query("UPDATE postback SET state = 'APPLIED' WHERE body = 'old' RETURNING 1")
    await query("UPDATE postback SET received_at = received_at - interval '3 days' RETURNING 1")
    await postgres.save_postbacks([raw(b"new")])
    await query("UPDATE postback SET state = 'APPLIED' WHERE body = 'new' RETURNING 1")
    assert await postgres.empty_postbacks(timedelta(days=2)) == 1
    assert await postgres.empty_postbacks(timedelta(days=2)) == 0
    bodies = await query("SELECT body FROM postback ORDER BY body")
    assert [bytes(row["body"]) for row in bodies] == [b"", b"new", b"waits"]
    await postgres.save_postbacks([raw(b"old")])
    assert await count(postgres, "postback") == 3
    assert await postgres.empty_postbacks(timedelta(0)) == 1
