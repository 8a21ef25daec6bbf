"""What people are told: the story of a number, the export, what blocks a campaign."""

from datetime import timedelta

import pytest

from dispatcher.domain.account import AccountState, StopReason
from dispatcher.domain.audit import AuditActor
from dispatcher.domain.campaign import Campaign, CampaignState
from dispatcher.domain.dnc import DncAdd, Scope
from dispatcher.domain.history import explain_history
from dispatcher.domain.permitting import Hold
from dispatcher.domain.results import Disposition as D
from dispatcher.domain.results import Result
from dispatcher.ports import Store
from dispatcher.store import PostgresStore
from tests.factories import a_shift, apply, ask_for, dial, exported, load, make_account, make_campaign, number, update

RULES = {"BUSY": {"delays": ["5m"]}, "jitter": 0.0}


async def told(store: PostgresStore, campaign: Campaign, i: int = 1) -> str:
    """The story as one text."""
    history = await store.history(await store.campaign(campaign.id), number(i))
    assert history
    lines = explain_history(history)
    assert [at for at, _ in lines if at] == sorted(at for at, _ in lines if at)
    return "\n".join(text for _, text in lines)


class TestStory:
    async def test_from_the_file_to_the_result(self, postgres: PostgresStore) -> None:
        campaign = await make_campaign(postgres, [number(1), number(1)], retry=RULES)
        (row,) = await dial(postgres, campaign)
        assert "request is on the wire" in await told(postgres, campaign)
        await apply(postgres, update(row.key, D.IN_FLIGHT, provider_call_id="77", raw_state="SELECTED"))
        assert "ACCEPTED: waits for news; asked about at" in await told(postgres, campaign)
        await apply(postgres, update(row.key, D.RETRYABLE, Result.BUSY, raw_state="FINISHED", raw_result="BUSY"))
        text = await told(postgres, campaign)
        assert "read from test.csv, line 2 (load 1), screened: READY" in text
        assert "line 3 (load 1), screened: DUP (LINE 2)" in text
        assert "RESULT, BUSY, they said FINISHED/BUSY, their call 77" in text
        assert "dialled again by rule [retry.BUSY] (delays 300 s; at most 3 dials)" in text
        assert "blocked by: it is not due yet" in text

    async def test_it_says_what_blocks(self, postgres: PostgresStore) -> None:
        window = {"timezone": "UTC", "days": "mon", "open": "00:00", "close": "00:01"}
        campaign = await make_campaign(postgres, [number(1)], window=window)
        await postgres.move_campaign(campaign.id, CampaignState.PAUSED, actor=AuditActor.OPERATOR, reason="operator")
        await postgres.hold_account(campaign.account_id)
        await postgres.slow_account(campaign.account_id, timedelta(minutes=5))
        text = await told(postgres, campaign)
        for part in ("campaign is PAUSED", "main is STOPPED (OPERATOR)", "throttled by", "window opens at"):
            assert part in text

    async def test_somebody_elses_call_blocks(self, postgres: PostgresStore) -> None:
        first = await make_campaign(postgres, [number(1)])
        second = await make_campaign(postgres, [number(1)], await postgres.account(first.account_id))
        await dial(postgres, first)
        assert f"campaign {first.id} is calling this person now" in await told(postgres, second)
        assert (await postgres.status(second)).person_busy == 1

    async def test_final_ones_and_lists(self, postgres: PostgresStore) -> None:
        campaign = await make_campaign(postgres, [number(1), number(2), number(3)])
        rows = await dial(postgres, campaign, 2)
        await apply(postgres, update(rows[0].key, D.FINAL_SUCCESS, Result.LA))
        assert "FINISHED LA, by result; 1 dial charged" in await told(postgres, campaign)
        await apply(postgres, update(rows[1].key, D.PROVIDER_RETRY))
        elsewhere = DncAdd(numbers=(number(2),), list="other", source="s", scope=Scope.CAMPAIGN, scope_id=99)
        await postgres.dnc_add(elsewhere)
        await postgres.dnc_add(DncAdd(numbers=(number(2),), list="late", source="s"))
        text = await told(postgres, campaign, 2)
        assert "the provider rings again by itself" in text
        assert "on do-not-call list late: it will not be dialled again" in text
        await dial(postgres, campaign)
        assert "its request is on the wire" in await told(postgres, campaign, 3)
        assert await postgres.history(campaign, number(9)) is None


async def test_an_export_holds_every_record_in_order(postgres: PostgresStore) -> None:
    campaign = await make_campaign(postgres, [number(2), "junk", number(1), number(2)])
    await load(postgres, campaign, [number(3)], identity="2" * 64)
    (row,) = await dial(postgres, campaign, 1)
    await apply(postgres, update(row.key, D.FINAL_SUCCESS, Result.LA))
    rows = await exported(postgres, campaign)
    assert [(r.line, r.state, r.e164) for r in rows] == [
        (2, "FINISHED", number(2)),
        (3, "INVALID", None),
        (4, "READY", number(1)),
        (5, "DUP", number(2)),
        (2, "READY", number(3)),
    ]
    assert (rows[0].result, rows[0].dials, rows[0].due_at) == ("LA", 1, None)
    assert dict(rows[0].variables) == {"name": "Ada 2"}


class TestHeldAccounts:
    async def test_a_person_stops_and_resumes(self, store: Store) -> None:
        campaign = await make_campaign(store, [number(1)])
        async with a_shift(store, campaign) as shift:
            assert await store.hold_account(campaign.account_id)
            assert not await store.hold_account(campaign.account_id)
            assert (await store.permit(ask_for(campaign, shift))).held is Hold.ACCOUNT_STOPPED
        assert (await store.upkeep()).accounts_to_probe == ()
        assert not await store.stop_account(campaign.account_id, "HTTP 401")
        account = await store.account(campaign.account_id)
        assert (account.state, account.reason) == (AccountState.STOPPED, StopReason.OPERATOR)
        assert await store.reopen_account(account.id, actor=AuditActor.OPERATOR)
        assert (await store.account(account.id)).state is AccountState.OPEN

    async def test_a_person_overrules_the_probe(self, store: Store) -> None:
        account = await make_account(store)
        await store.stop_account(account.id, "HTTP 401")
        assert await store.hold_account(account.id)
        assert (await store.account(account.id)).reason == StopReason.OPERATOR

    async def test_edits(self, store: Store) -> None:
        account = await make_account(store)
        edited = await store.edit_account(account.id, {"cps": 7.0, "in_flight_ttl": timedelta(seconds=9)})
        assert (edited.cps, edited.in_flight_ttl, edited.shifts) == (7.0, timedelta(seconds=9), account.shifts)


class TestStatus:
    @pytest.mark.parametrize("measured", [True, False])
    async def test_without_a_tick_it_says_that_nothing_runs(self, postgres: PostgresStore, measured: bool) -> None:
        campaign = await make_campaign(postgres, [number(1)])
        async with postgres.db.transaction() as tx:
            if not measured:  # the last tick was long ago
                await tx.connection.execute("UPDATE heartbeat SET at = at - interval '1 min'")
            await tx.connection.execute("UPDATE campaign SET started_at = started_at - interval '1 min'")
        blocked = (await postgres.status(campaign)).blocked_by
        assert (blocked or "").startswith("NOTHING_RUNS") is not measured

    async def test_rate_and_what_is_out(self, postgres: PostgresStore) -> None:
        campaign = await make_campaign(postgres, [number(i) for i in range(4)], cps=7)
        await postgres.upkeep()
        async with postgres.db.transaction() as tx:
            await tx.connection.execute("UPDATE campaign_pace SET at = at - interval '8 s', measure_at = now()")
        rows = await dial(postgres, campaign, 4)
        await apply(postgres, update(rows[0].key, D.PROVIDER_RETRY), update(rows[1].key, D.RETRYABLE, Result.BUSY))
        await postgres.upkeep()
        status = await postgres.status(campaign)
        assert status.rate == pytest.approx(0.5, rel=0.05)
        assert status.limit == pytest.approx(7 * 0.98)
        assert (status.in_flight, status.provider_retries, status.retry_due_at is not None) == (2, 1, True)

    async def test_an_operators_stop_names_the_way_back(self, postgres: PostgresStore) -> None:
        campaign = await make_campaign(postgres, [number(1)])
        await postgres.hold_account(campaign.account_id)
        assert "dispatcher account resume main" in ((await postgres.status(campaign)).blocked_by or "")


async def test_a_story_has_every_record_of_the_number(postgres: PostgresStore) -> None:
    campaign = await make_campaign(postgres, [number(1), number(1), "+44 20 7946 0958"])
    await load(postgres, campaign, [number(1)], identity="2" * 64)
    history = await postgres.history(campaign, number(1))
    assert history
    assert [(row.line, row.state, row.reason) for row in history.rows] == [
        (2, "READY", None),
        (3, "DUP", "LINE 2"),
        (2, "DUP", f"LOAD {history.rows[0].load_id} LINE 2"),
    ]
    refused = await postgres.history(campaign, "+442079460958")
    assert refused
    assert [(row.state, row.reason) for row in refused.rows] == [("INVALID", "REGION_NOT_ALLOWED")]
