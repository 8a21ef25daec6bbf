"""Messages that wait for a lock: what was committed meanwhile counts. What an atomic store cannot show."""

import asyncio
from collections.abc import Sequence

import pytest

from dispatcher.domain.account import Account
from dispatcher.domain.attempt import Shift
from dispatcher.domain.audit import AuditActor
from dispatcher.domain.campaign import Campaign, CampaignState
from dispatcher.domain.dnc import DncAdd
from dispatcher.domain.permitting import Hold, Permitted
from dispatcher.domain.results import Disposition as D
from dispatcher.domain.results import Result
from dispatcher.store import PostgresStore
from tests.factories import (
    apply,
    ask_for,
    make_account,
    make_campaign,
    number,
    permit,
    states,
    update,
)
from tests.integration.proxy import Rival, shift_of, start_permit


@pytest.fixture
def store(strict_store: PostgresStore) -> PostgresStore:
    return strict_store


async def list_number(store: PostgresStore, e164: str) -> tuple[str, ...]:
    """The keys of calls for which it came too late."""
    return (await store.dnc_add(DncAdd(numbers=(e164,), list="l", source="s"))).still_out


async def screen_nothing(numbers: Sequence[str]) -> int:
    return 0


class TestListed:
    async def test_while_a_permit_waits_for_the_lists_is_refused(
        self, store: PostgresStore, rival: Rival, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        campaign = await make_campaign(store, [number(1), number(2)])
        monkeypatch.setattr(store, "_screen", screen_nothing)
        await rival.hold(
            "INSERT INTO dnc_entry (scope, channel, number, list, source) VALUES ('global', 'all', %s, 'l', 's')",
            number(1),
        )
        listing = asyncio.create_task(list_number(store, number(1)))
        await rival.until_waiting(1)
        asked = await start_permit(store, campaign)
        await rival.until_waiting(2)
        await rival.rollback()
        assert await listing == ()
        permits = await asked
        assert ([row.e164 for row in permits.granted], permits.refused) == ([number(2)], 1)
        assert await states(store, campaign) == {"DNC": 1, "SELECTED": 1}

    async def test_while_a_permit_waits_for_its_account_comes_after_it(
        self, store: PostgresStore, rival: Rival
    ) -> None:
        campaign = await make_campaign(store, [number(1), number(2)])
        await rival.hold_account(campaign.account_id)
        asked = await start_permit(store, campaign)
        await rival.until_waiting(1)
        listing = asyncio.create_task(list_number(store, number(1)))
        await rival.until_waiting(2)
        assert await rival.ask("SELECT id FROM dnc_entry") == []
        await rival.rollback()
        granted = {row.e164: row.key for row in (await asked).granted}
        assert set(granted) == {number(1), number(2)}
        assert await listing == (granted[number(1)],)

    async def test_before_a_permit_waits_for_its_account_is_refused(
        self, store: PostgresStore, rival: Rival, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        campaign = await make_campaign(store, [number(1)])
        monkeypatch.setattr(store, "_screen", screen_nothing)
        await list_number(store, number(1))
        await rival.hold_account(campaign.account_id)
        asked = await start_permit(store, campaign)
        await rival.until_waiting(1)
        await rival.rollback()
        assert ((await asked).granted, (await asked).refused) == ((), 1)

    async def test_never_is_granted_when_many_lists_and_permits_run_at_once(self, store: PostgresStore) -> None:
        numbers = [number(i) for i in range(60)]
        campaign = await make_campaign(store, numbers)
        shift = await shift_of(store, campaign)
        late: list[str] = []

        async def listing() -> None:
            for e164 in numbers[::2]:
                late.extend(await list_number(store, e164))

        adding = asyncio.create_task(listing())
        granted: list[Permitted] = []
        for _ in range(20):
            granted += (await store.permit(ask_for(campaign, shift, 3))).granted
        await adding
        assert {row.key for row in granted if row.e164 in numbers[::2]} == set(late)


class TestPause:
    async def test_that_commits_while_a_permit_waits_holds_it(self, store: PostgresStore, rival: Rival) -> None:
        campaign = await make_campaign(store, [number(1)])
        await rival.hold("SELECT id FROM campaign WHERE id = %s FOR UPDATE", campaign.id)
        pausing = asyncio.create_task(pause(store, campaign))
        await rival.until_waiting(1)
        asked = await start_permit(store, campaign)
        await rival.until_waiting(2)
        await rival.rollback()
        await pausing
        assert ((await asked).granted, (await asked).held) == ((), Hold.CAMPAIGN_NOT_RUNNING)
        assert await states(store, campaign) == {"READY": 1}

    async def test_returns_only_after_the_permit_that_was_before_it(self, store: PostgresStore, rival: Rival) -> None:
        campaign = await make_campaign(store, [number(1), number(2)])
        await rival.hold_number(number(1))
        asked = await start_permit(store, campaign, 1)
        await rival.until_waiting(1)
        pausing = asyncio.create_task(pause(store, campaign))
        await rival.until_waiting(2)
        assert not pausing.done()
        await rival.rollback()
        await pausing
        assert len(await rival.open_keys()) == 1
        assert len((await asked).granted) == 1
        assert (await permit(store, campaign)).held is Hold.CAMPAIGN_NOT_RUNNING
        assert len(await rival.open_keys()) == 1

    async def test_of_the_account_waits_for_the_permit_too(self, store: PostgresStore, rival: Rival) -> None:
        campaign = await make_campaign(store, [number(1), number(2)])
        await rival.hold_number(number(1))
        asked = await start_permit(store, campaign, 1)
        await rival.until_waiting(1)
        holding = asyncio.create_task(store.hold_account(campaign.account_id))
        await rival.until_waiting(2)
        await rival.rollback()
        assert await holding
        assert len(await rival.open_keys()) == 1
        assert len((await asked).granted) == 1

    async def test_that_has_returned_is_followed_by_no_permit(self, store: PostgresStore, rival: Rival) -> None:
        campaign = await make_campaign(store, [number(i) for i in range(300)])
        shifts = [await shift_of(store, campaign, owner) for owner in ("v", "w")]

        async def permit_until_held(shift: Shift) -> None:
            while (await store.permit(ask_for(campaign, shift, 1))).held is not Hold.CAMPAIGN_NOT_RUNNING:
                pass

        for _ in range(5):
            running = [asyncio.create_task(permit_until_held(shift)) for shift in shifts]
            await rival.until_open(10 + len(await rival.open_keys()))
            await pause(store, campaign)
            there = await rival.open_keys()
            await asyncio.gather(*running)
            assert await rival.open_keys() == there
            await store.move_campaign(campaign.id, CampaignState.RUNNING, actor=AuditActor.OPERATOR)


async def pause(store: PostgresStore, campaign: Campaign) -> None:
    await store.move_campaign(campaign.id, CampaignState.PAUSED, actor=AuditActor.OPERATOR, reason="operator")


class TestPolicy:
    async def test_that_changes_while_a_permit_waits_holds_it(self, store: PostgresStore, rival: Rival) -> None:
        campaign = await make_campaign(store, [number(1)])
        await rival.hold_account(campaign.account_id)
        await rival.hold(
            "INSERT INTO campaign_policy SELECT campaign_id, 2, body FROM campaign_policy WHERE campaign_id = %s",
            campaign.id,
        )
        await rival.hold("UPDATE campaign SET policy_version = 2 WHERE id = %s", campaign.id)
        asked = await start_permit(store, campaign)
        await rival.until_waiting(1)
        await rival.commit()
        assert ((await asked).granted, (await asked).held) == ((), Hold.POLICY_CHANGED)
        assert await states(store, campaign) == {"READY": 1}

    async def test_of_the_account_that_changes_counts_too(self, store: PostgresStore, rival: Rival) -> None:
        campaign = await make_campaign(store, [number(i) for i in range(5)])
        await rival.hold_number(number(0))
        first = await start_permit(store, campaign, 1)
        await rival.until_waiting(1)
        editing = asyncio.create_task(store.edit_account(campaign.account_id, {"in_flight": 2}))
        await rival.until_waiting(2)
        second = await start_permit(store, campaign)
        await rival.until_waiting(3)
        await rival.rollback()
        await editing
        assert (len((await first).granted), len((await second).granted)) == (1, 1)


class TestInFlight:
    @pytest.mark.parametrize("whose", ["account", "campaign"])
    async def test_at_one_below_the_cap_one_of_two_permits_is_granted(
        self, store: PostgresStore, rival: Rival, whose: str
    ) -> None:
        account = await make_account(store, in_flight=3 if whose == "account" else 500)
        caps = {"in_flight": 3} if whose == "campaign" else {}
        campaign = await make_campaign(store, [number(i) for i in range(22)], account, **caps)
        shifts = [await shift_of(store, campaign, owner) for owner in ("v", "w")]
        assert len((await store.permit(ask_for(campaign, shifts[0], 2))).granted) == 2
        for _ in range(20):
            await rival.hold_account(account.id)
            asked = [asyncio.create_task(store.permit(ask_for(campaign, shift, 2))) for shift in shifts]
            await rival.until_waiting(2)
            await rival.rollback()
            granted = [row for permits in await asyncio.gather(*asked) for row in permits.granted]
            assert len(granted) == 1
            await apply(store, update(granted[0].key, D.FINAL_SUCCESS, Result.LA))


class TestOnePerson:
    async def test_is_never_called_by_two_accounts_at_once(self, store: PostgresStore, rival: Rival) -> None:
        """Both permits hold what they have taken while they wait for the person in the middle."""
        rounds, n = 15, 6
        first, second = [await make_account(store, name) for name in ("first", "second")]
        groups = [[number(r * n + i) for i in range(n)] for r in range(rounds)]
        campaigns = await both_ways(store, groups, first, second)
        shifts = [await shift_of(store, campaign) for campaign in campaigns]
        for group in groups:
            await rival.hold_number(group[n // 2])
            asked = [
                asyncio.create_task(store.permit(ask_for(campaign, shift, n)))
                for campaign, shift in zip(campaigns, shifts, strict=True)
            ]
            await rival.until_waiting(2)
            await rival.rollback()
            granted = [row.e164 for permits in await asyncio.gather(*asked) for row in permits.granted]
            assert sorted(granted) == sorted(group)

    async def test_is_never_called_by_two_accounts_in_a_rush(self, store: PostgresStore) -> None:
        first, second = [await make_account(store, name) for name in ("first", "second")]
        groups = [[number(r * 10 + i) for i in range(10)] for r in range(30)]
        campaigns = await both_ways(store, groups, first, second)

        async def rush(campaign: Campaign) -> list[str]:
            shift = await shift_of(store, campaign)
            permits = [await store.permit(ask_for(campaign, shift, 10)) for _ in groups]
            return [row.e164 for p in permits for row in p.granted]

        granted = [e164 for found in await asyncio.gather(*map(rush, campaigns)) for e164 in found]
        assert sorted(granted) == sorted(e164 for group in groups for e164 in group)


async def both_ways(
    store: PostgresStore, groups: Sequence[Sequence[str]], first: Account, second: Account
) -> tuple[Campaign, Campaign]:
    """Two campaigns with the same people: the second meets those of each group from its end."""
    forth = [e164 for group in groups for e164 in group]
    back = [e164 for group in groups for e164 in reversed(group)]
    return await make_campaign(store, forth, first), await make_campaign(store, back, second)
