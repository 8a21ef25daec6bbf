"""News and imports that meet in the database: a transaction that waited decides on what it finds afterwards."""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime

import pytest

from dispatcher.domain.audit import AuditActor
from dispatcher.domain.campaign import Campaign, CampaignState
from dispatcher.domain.dnc import DncImport, ImportTicket, ListedNumbers, Scope
from dispatcher.domain.permitting import Permitted
from dispatcher.domain.results import Disposition as D
from dispatcher.domain.results import Result, UpdateSource
from dispatcher.domain.steps import Decision
from dispatcher.store import PostgresStore
from tests.factories import (
    LEASE,
    apply,
    dial,
    make_account,
    make_campaign,
    number,
    states,
    update,
)
from tests.integration.proxy import Rival, start_permit


@pytest.fixture
def store(strict_store: PostgresStore) -> PostgresStore:
    return strict_store


async def tell_unsent(store: PostgresStore, row: Permitted, campaign: Campaign) -> list[Decision]:
    """As a worker does, with what it knows of the call from its permit."""
    known = {row.key: row.context(campaign.policy, row.permit_at)}
    return await store.settle([update(row.key, D.NOT_SENT, source=UpdateSource.SUBMIT)], [0.5], known)


async def staged(store: PostgresStore, numbers: Sequence[str], **place: object) -> ImportTicket:
    new = DncImport(list="national", source="file", identity="1" * 64, **place)  # type: ignore[arg-type]
    ticket = await store.dnc_begin_import(new, owner="importer", lease=LEASE)
    await store.dnc_stage(ticket, ListedNumbers.of(numbers), lease=LEASE)
    return ticket


async def screen_all(store: PostgresStore, campaign: Campaign) -> int:
    """Every page; how many rows were moved."""
    after, moved = await store.dnc_screen_waiting(campaign, None, 1000)
    while after:
        after, more = await store.dnc_screen_waiting(campaign, after, 1000)
        moved += more
    return moved


class TestImport:
    async def test_in_force_while_a_put_back_waits_ends_the_row(self, store: PostgresStore, rival: Rival) -> None:
        campaign = await make_campaign(store, [number(1)])
        (row,) = await dial(store, campaign)
        ticket = await staged(store, [number(1)])
        await rival.hold("SELECT id FROM dnc_import FOR UPDATE")
        activating = asyncio.create_task(store.dnc_activate(ticket))
        await rival.until_waiting(1)
        telling = asyncio.create_task(tell_unsent(store, row, campaign))
        await rival.until_waiting(2)
        await rival.rollback()
        await activating
        await telling
        await screen_all(store, campaign)
        assert await states(store, campaign) == {"DNC": 1}

    async def test_whose_page_skips_a_row_that_is_being_put_back(self, store: PostgresStore, rival: Rival) -> None:
        campaign = await make_campaign(store, [number(1)])
        (row,) = await dial(store, campaign)
        await store.dnc_activate(await staged(store, [number(1)]))
        await rival.hold("SELECT key FROM open_attempt FOR UPDATE")
        telling = asyncio.create_task(tell_unsent(store, row, campaign))
        await rival.until_waiting(1)
        assert await screen_all(store, campaign) == 0
        await rival.rollback()
        await telling
        assert await states(store, campaign) == {"DNC": 1}

    async def test_comes_into_force_after_a_put_back_that_was_first(self, store: PostgresStore, rival: Rival) -> None:
        campaign = await make_campaign(store, [number(1)])
        (row,) = await dial(store, campaign)
        ticket = await staged(store, [number(1)])
        await rival.hold("SELECT key FROM open_attempt FOR UPDATE")
        telling = asyncio.create_task(tell_unsent(store, row, campaign))
        await rival.until_waiting(1)
        activating = asyncio.create_task(store.dnc_activate(ticket))
        await rival.until_waiting(2)
        await rival.rollback()
        await telling
        await activating
        assert await states(store, campaign) == {"READY": 1}
        assert await screen_all(store, campaign) == 1
        assert await states(store, campaign) == {"DNC": 1}

    async def test_whose_page_skips_a_row_that_is_being_permitted(self, store: PostgresStore, rival: Rival) -> None:
        campaign = await make_campaign(store, [number(1), number(2)])
        await store.dnc_activate(await staged(store, [number(2)]))
        await rival.hold_number(number(1))
        asked = await start_permit(store, campaign)
        await rival.until_waiting(1)
        assert await screen_all(store, campaign) == 0
        await rival.rollback()
        assert ([row.e164 for row in (await asked).granted], (await asked).refused) == ([number(1)], 1)
        assert await states(store, campaign) == {"DNC": 1, "SELECTED": 1}

    async def test_whose_page_skips_a_row_whose_person_is_busy(self, store: PostgresStore, rival: Rival) -> None:
        """The permit has the row locked, finds the person busy and lets it wait: it must ask the lists as well."""
        elsewhere = await make_campaign(store, [number(2)])
        await dial(store, elsewhere)
        campaign = await make_campaign(store, [number(1), number(2)], await make_account(store, "other"))
        ticket = await staged(store, [number(2)], scope=Scope.ACCOUNT, scope_id=campaign.account_id)
        await store.dnc_activate(ticket)
        await rival.hold_number(number(1))
        asked = await start_permit(store, campaign)
        await rival.until_waiting(1)
        assert await screen_all(store, campaign) == 0
        await rival.rollback()
        assert [row.e164 for row in (await asked).granted] == [number(1)]
        assert await states(store, campaign) == {"DNC": 1, "SELECTED": 1}


class TestNews:
    async def test_of_the_same_calls_told_twice_at_once_are_decided_once(
        self, store: PostgresStore, rival: Rival
    ) -> None:
        for turn in range(5):
            people = [number(turn * 10 + i) for i in range(10)]
            campaign = await make_campaign(store, people, await make_account(store, f"a{turn}"))
            rows = await dial(store, campaign)
            told = [update(row.key, D.FINAL_SUCCESS, Result.LA) for row in rows]
            asked = [update(row.key, D.FINAL_SUCCESS, Result.LA, UpdateSource.LOOKUP) for row in reversed(rows)]
            middle = rows[5].destination_id
            await rival.hold("SELECT id FROM destination_0 WHERE id = %s FOR UPDATE", middle)
            settling = [asyncio.create_task(store.settle(heard, [0.5] * 10)) for heard in (told, asked)]
            await rival.until_waiting(2)
            await rival.rollback()
            both = [d for decisions in await asyncio.gather(*settling) for d in decisions]
            assert sorted(type(d.step).__name__ for d in both) == ["Finish"] * 10 + ["Ignore"] * 10
            assert await states(store, campaign) == {"FINISHED LA": 10}
            assert await rival.ask("SELECT count(*) FROM attempt WHERE campaign_id = %s", campaign.id) == [(10,)]

    async def test_that_differ_leave_one_result_each(self, store: PostgresStore) -> None:
        campaign = await make_campaign(store, [number(i) for i in range(40)])
        rows = await dial(store, campaign, 40)
        answered = [
            update(row.key, D.IN_FLIGHT, source=UpdateSource.SUBMIT, provider_call_id=f"c{row.key}") for row in rows
        ]
        heard = [update(row.key, D.RETRYABLE, Result.BUSY) for row in reversed(rows)]
        asked = [update(row.key, D.FINAL_SUCCESS, Result.LA, UpdateSource.LOOKUP) for row in rows[::2] + rows[1::2]]
        await asyncio.gather(*(store.settle(told, [0.5] * 40) for told in (answered, heard, asked)))
        # whichever came first: somebody who was reached stays reached
        assert await states(store, campaign) == {"FINISHED LA": 40}


class TestStaleSituation:
    async def test_is_read_and_decided_again(self, store: PostgresStore, rival: Rival) -> None:
        campaign = await make_campaign(store, [number(1)])
        (row,) = await dial(store, campaign)
        await apply(store, update(row.key, D.IN_FLIGHT, source=UpdateSource.SUBMIT, provider_call_id="c1"))
        known = {row.key: row.context(campaign.policy, datetime.now(UTC))}
        (decision,) = await store.settle([update(row.key, D.FINAL_SUCCESS, Result.LA)], [0.5], known)
        assert decision.context.version != known[row.key].version
        assert await states(store, campaign) == {"FINISHED LA": 1}
        assert await rival.ask("SELECT provider_call_id FROM attempt") == [("c1",)]

    async def test_puts_nobody_back_who_was_reached_meanwhile(self, store: PostgresStore) -> None:
        campaign = await make_campaign(store, [number(1)])
        (row,) = await dial(store, campaign)
        await apply(store, update(row.key, D.FINAL_SUCCESS, Result.LA))
        await tell_unsent(store, row, campaign)
        assert await states(store, campaign) == {"FINISHED LA": 1}

    async def test_that_goes_stale_while_the_message_waits(self, store: PostgresStore, rival: Rival) -> None:
        """The campaign is aborted while the put-back waits for its row: it ends, and does not wait again."""
        campaign = await make_campaign(store, [number(1)])
        (row,) = await dial(store, campaign)
        await rival.hold("SELECT id FROM destination_0 FOR UPDATE")
        telling = asyncio.create_task(tell_unsent(store, row, campaign))
        await rival.until_waiting(1)
        await store.move_campaign(campaign.id, CampaignState.ABORTED, actor=AuditActor.OPERATOR)
        await rival.rollback()
        (decision,) = await telling
        assert decision.context.campaign_state is CampaignState.ABORTED
        assert await states(store, campaign) == {"FINISHED UNDIALED": 1}
