"""Reaper, resolver, matching: the same cases on memory and on PostgreSQL, invariants checked after each."""

from datetime import UTC, datetime, timedelta

from dispatcher.domain.results import CallReport, Outcome, Result, UpdateSource
from dispatcher.domain.results import Disposition as D
from dispatcher.domain.steps import AttemptContext
from dispatcher.ports import Store
from tests.factories import (
    OVER,
    accounts_to_ask,
    apply,
    dial,
    expired,
    make_campaign,
    number,
    permit,
    states,
    update,
)


def keys(found: list[AttemptContext | None]) -> list[str | None]:
    return [at.key if at else None for at in found]


NOW = {"BUSY": {"delays": ["1ms"]}, "jitter": 0.0}


class TestReaper:
    async def test_what_may_have_been_sent_never_goes_back(self, store: Store) -> None:
        campaign = await make_campaign(store, [number(1)])
        await dial(store, campaign, lease=OVER)
        assert await apply(store, *await expired(store)) == ["Await"]
        assert await states(store, campaign) == {"SELECTED": 1}
        assert (await permit(store, campaign)).granted == ()
        assert await expired(store) == []

    async def test_a_lease_that_lives_is_left_alone(self, store: Store) -> None:
        campaign = await make_campaign(store, [number(1)])
        (row,) = await dial(store, campaign)
        assert await expired(store) == []
        assert await apply(store, update(row.key, D.LEASE_OVER, source=UpdateSource.REAPER)) == ["LEASE_ALIVE"]


class TestResolver:
    async def test_what_stays_unknown_times_out_and_a_late_result_amends_it(self, store: Store) -> None:
        campaign = await make_campaign(store, [number(1)], timeouts={"unknown": "1ms", "accepted": "1ms"})
        (row,) = await dial(store, campaign)
        await apply(store, update(row.key, D.RECONCILE, source=UpdateSource.SUBMIT))
        assert await accounts_to_ask(store) in ((), (campaign.account_id,))
        assert await apply(store, update(row.key, D.OVERDUE, source=UpdateSource.RESOLVER)) == ["Finish"]
        assert await states(store, campaign) == {"TIMEOUT": 1}
        assert (await permit(store, campaign)).granted == ()
        assert await apply(store, update(row.key, D.RETRYABLE, Result.BUSY)) == ["Finish"]
        assert await states(store, campaign) == {"FINISHED BUSY": 1}
        assert (await permit(store, campaign)).granted == ()

    async def test_asks_about_what_waits(self, store: Store) -> None:
        campaign = await make_campaign(store, [number(1)], timeouts={"unknown": "1ms", "accepted": "1ms"})
        (row,) = await dial(store, campaign)
        await apply(store, update(row.key, D.IN_FLIGHT, source=UpdateSource.SUBMIT, provider_call_id="77"))
        for _ in range(1000):
            if found := await store.take_lookups(campaign.account_id, 10):
                break
        assert [(c.key, c.to, c.provider_call_id) for c in found] == [(row.key, number(1), "77")]
        assert await store.take_lookups(campaign.account_id + 1, 10) == []

    async def test_what_is_not_overdue_is_not_given_up(self, store: Store) -> None:
        campaign = await make_campaign(store, [number(1)])
        (row,) = await dial(store, campaign)
        await apply(store, update(row.key, D.RECONCILE, source=UpdateSource.SUBMIT))
        assert await apply(store, update(row.key, D.OVERDUE, source=UpdateSource.RESOLVER)) == ["NOT_OVERDUE"]

    async def test_a_lookup_that_finds_nothing_proves_nothing(self, store: Store) -> None:
        campaign = await make_campaign(store, [number(1)])
        (row,) = await dial(store, campaign)
        await apply(store, update(row.key, D.RECONCILE, source=UpdateSource.SUBMIT))
        assert await apply(store, update(row.key, D.RECONCILE, source=UpdateSource.LOOKUP)) == ["Await"]
        assert await states(store, campaign) == {"SELECTED": 1}


class TestMatch:
    async def test_by_key_by_call_and_never_with_another_number(self, store: Store) -> None:
        campaign = await make_campaign(store, [number(1), number(2)])
        one, two = await dial(store, campaign)
        await apply(store, update(one.key, D.IN_FLIGHT, source=UpdateSource.SUBMIT, provider_call_id="77"))

        def seen(call: str | None = None, key: str | None = None, to: str | None = None) -> CallReport:
            return CallReport(outcome=Outcome(disposition=D.IN_FLIGHT, provider_call_id=call), key=key, to=to)

        asked = [seen("77"), seen("77", to=number(1)), seen("77", to=number(2)), seen(key=two.key), seen("99"), seen()]
        expected = [one.key, one.key, None, two.key, None, None]
        assert keys(await store.match(campaign.account_id, asked)) == expected
        assert await store.match(campaign.account_id + 1, asked) == [None] * 6
        await apply(store, update(one.key, D.FINAL_SUCCESS, Result.LA))
        assert keys(await store.match(campaign.account_id, asked)) == expected

    async def test_by_number_only_the_single_open_call_without_an_id(self, store: Store) -> None:
        campaign = await make_campaign(store, [number(1), number(2)])
        one, two = await dial(store, campaign)
        await apply(store, update(one.key, D.IN_FLIGHT, source=UpdateSource.SUBMIT, provider_call_id="77"))
        later = datetime.now(UTC) + timedelta(minutes=1)
        nothing = Outcome(disposition=D.IN_FLIGHT)
        asked = [CallReport(outcome=nothing, to=number(i), created_at=later) for i in (1, 2, 3)]
        earlier = [CallReport(outcome=nothing, to=number(2), created_at=at) for at in (None, later - timedelta(days=1))]
        assert await store.match_by_number(campaign.account_id, earlier[:1]) == [None]
        assert await store.match_by_number(campaign.account_id, earlier[1:]) == [None]
        assert keys(await store.match_by_number(campaign.account_id, asked)) == [None, two.key, None]
