"""Reaper, resolver, matching: the same cases on memory and on PostgreSQL, invariants checked after each."""

from datetime import UTC, datetime, timedelta

from dispatcher.domain.results import Disposition as D
from dispatcher.domain.results import Outcome, Result, Sighting, Source
from dispatcher.ports import Store
from tests.factories import (
    OVER,
    claim,
    dial,
    hear,
    make_campaign,
    news,
    number,
    permit,
    states,
)

NOW = {"BUSY": {"delays": ["1ms"]}, "jitter": 0.0}


class TestReaper:
    async def test_an_unsent_attempt_goes_back(self, store: Store) -> None:
        campaign = await make_campaign(store, [number(1)])
        await claim(store, campaign, lease=OVER)
        assert await hear(store, *await store.expired_leases(10)) == ["PutBack"]
        assert await states(store, campaign) == {"READY": 1}
        assert await store.expired_leases(10) == []

    async def test_a_sent_one_never_does(self, store: Store) -> None:
        campaign = await make_campaign(store, [number(1)])
        await permit(store, campaign, await claim(store, campaign), lease=OVER)
        assert await hear(store, *await store.expired_leases(10)) == ["Await"]
        assert await states(store, campaign) == {"SELECTED": 1}
        assert await claim(store, campaign) == []

    async def test_a_lease_that_lives_is_left_alone(self, store: Store) -> None:
        campaign = await make_campaign(store, [number(1)])
        (row,) = await claim(store, campaign)
        assert await store.expired_leases(10) == []
        assert await hear(store, news(row.key, D.LEASE_OVER, source=Source.REAPER)) == ["LEASE_ALIVE"]

    async def test_three_crashes_are_poison(self, store: Store) -> None:
        campaign = await make_campaign(store, [number(1)])
        for _ in range(3):
            await claim(store, campaign, lease=OVER)
            await hear(store, *await store.expired_leases(10), draw=0.0)
        assert await states(store, campaign) == {"INVALID": 1}

    async def test_a_permit_forgives_the_crashes_before_it(self, store: Store) -> None:
        campaign = await make_campaign(store, [number(1)])
        for _ in range(5):
            await claim(store, campaign, lease=OVER)
            await hear(store, *await store.expired_leases(10), draw=0.0)
            (row,) = await dial(store, campaign)
            await hear(store, news(row.key, D.NOT_SENT, source=Source.SUBMIT))
        assert await states(store, campaign) == {"READY": 1}


class TestResolver:
    async def test_what_stays_unknown_times_out_and_a_late_result_amends_it(self, store: Store) -> None:
        campaign = await make_campaign(store, [number(1)], timeouts={"unknown": "1ms", "accepted": "1ms"})
        (row,) = await dial(store, campaign)
        await hear(store, news(row.key, D.RECONCILE, source=Source.SUBMIT))
        assert await store.accounts_to_ask() in ([], [campaign.account_id])
        assert await hear(store, news(row.key, D.OVERDUE, source=Source.RESOLVER)) == ["Finish"]
        assert await states(store, campaign) == {"TIMEOUT": 1}
        assert await claim(store, campaign) == []
        assert await hear(store, news(row.key, D.RETRYABLE, Result.BUSY)) == ["Finish"]
        assert await states(store, campaign) == {"FINISHED BUSY": 1}
        assert await claim(store, campaign) == []

    async def test_asks_about_what_waits(self, store: Store) -> None:
        campaign = await make_campaign(store, [number(1)], timeouts={"unknown": "1ms", "accepted": "1ms"})
        (row,) = await dial(store, campaign)
        await hear(store, news(row.key, D.IN_FLIGHT, source=Source.SUBMIT, provider_call_id="77"))
        for _ in range(1000):
            if found := await store.take_lookups(campaign.account_id, 10):
                break
        assert [(c.key, c.to, c.provider_call_id) for c in found] == [(row.key, number(1), "77")]
        assert await store.take_lookups(campaign.account_id + 1, 10) == []

    async def test_what_is_not_overdue_is_not_given_up(self, store: Store) -> None:
        campaign = await make_campaign(store, [number(1)])
        (row,) = await dial(store, campaign)
        await hear(store, news(row.key, D.RECONCILE, source=Source.SUBMIT))
        assert await hear(store, news(row.key, D.OVERDUE, source=Source.RESOLVER)) == ["NOT_OVERDUE"]

    async def test_a_lookup_that_finds_nothing_proves_nothing(self, store: Store) -> None:
        campaign = await make_campaign(store, [number(1)])
        (row,) = await dial(store, campaign)
        await hear(store, news(row.key, D.RECONCILE, source=Source.SUBMIT))
        assert await hear(store, news(row.key, D.RECONCILE, source=Source.LOOKUP)) == ["Await"]
        assert await states(store, campaign) == {"SELECTED": 1}


class TestMatch:
    async def test_by_key_by_call_and_never_with_another_number(self, store: Store) -> None:
        campaign = await make_campaign(store, [number(1), number(2)])
        one, two = await dial(store, campaign)
        await hear(store, news(one.key, D.IN_FLIGHT, source=Source.SUBMIT, provider_call_id="77"))

        def seen(call: str | None = None, key: str | None = None, to: str | None = None) -> Sighting:
            return Sighting(outcome=Outcome(disposition=D.IN_FLIGHT, provider_call_id=call), key=key, to=to)

        asked = [seen("77"), seen("77", to=number(1)), seen("77", to=number(2)), seen(key=two.key), seen("99"), seen()]
        expected = [one.key, one.key, None, two.key, None, None]
        assert await store.match(campaign.account_id, asked) == expected
        assert await store.match(campaign.account_id + 1, asked) == [None] * 6

    async def test_by_number_only_the_single_open_call_without_an_id(self, store: Store) -> None:
        campaign = await make_campaign(store, [number(1), number(2)])
        one, two = await dial(store, campaign)
        await hear(store, news(one.key, D.IN_FLIGHT, source=Source.SUBMIT, provider_call_id="77"))
        later = datetime.now(UTC) + timedelta(minutes=1)
        nothing = Outcome(disposition=D.IN_FLIGHT)
        asked = [Sighting(outcome=nothing, to=number(i), created_at=later) for i in (1, 2, 3)]
        earlier = [Sighting(outcome=nothing, to=number(2), created_at=at) for at in (None, later - timedelta(days=1))]
        assert await store.match_by_number(campaign.account_id, earlier[:1]) == [None]
        assert await store.match_by_number(campaign.account_id, earlier[1:]) == [None]
        assert await store.match_by_number(campaign.account_id, asked) == [None, two.key, None]
