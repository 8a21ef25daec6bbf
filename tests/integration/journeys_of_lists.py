"""Who must not be rung, however they came to say so: cases of test_provider_journeys."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from datetime import timedelta

from dispatcher.cli.accounts import postback_address
from dispatcher.domain.campaign import Campaign, CampaignState
from dispatcher.domain.dnc import DncAdd
from dispatcher.domain.history import explain_history
from dispatcher.flow import control, lists
from dispatcher.simulator.server import post
from tests.inprocess import FLOW, OLD, REST, SAMPLES, Journey, some


async def nobody_who_was_listed_meanwhile_is_sent_again(trip: Journey) -> None:
    async with trip.playing("phonon") as played:
        account = await trip.account(played, "phonon", "phonon", options=FLOW)
        await trip.services.store.record_dedupe_window(account.id, timedelta(seconds=60))
        (number,) = some([92], 1)
        campaign = await trip.campaign(account, [number])

        async def is_doubtful() -> bool:
            return bool(await trip.out(campaign))

        await trip.until(is_doubtful)
        await trip.list_number(number)
        await trip.until_done(campaign)
        assert played.ledger() == []
        assert played.count("POST", "/kairos-apis/outbound") == 1


async def who_is_wanted_no_more_is_not_rung_again(trip: Journey) -> None:
    """By an abort, or because a list names them now."""
    async with trip.playing("callfire", reattempt=60) as played:
        old = await trip.account(played, "callfire", "old", REST, options=OLD)
        new = await trip.account(played, "callfire", "v2", "/v2", options={"route": "broadcast"})
        waits = {"unknown": "10s", "accepted": "10s", "provider_retry": "150s"}
        numbers = some([80], 4)
        first, second, third, fourth = [
            await trip.campaign(account, [number], timeouts=waits)
            for account, number in zip((old, new, old, new), numbers, strict=True)
        ]

        async def once_it_waits(campaign: Campaign, act: Awaitable[object]) -> None:
            async def waits_for_them() -> bool:
                return {r.state for r in (await trip.rows(campaign)).values()} == {"CALLBACK"}

            await trip.until(waits_for_them)
            await act

        await asyncio.gather(
            once_it_waits(first, control.abort(first.id, trip.services)),
            once_it_waits(second, control.abort(second.id, trip.services)),
            once_it_waits(third, trip.list_number(numbers[2])),
            once_it_waits(fourth, trip.list_number(numbers[3])),
        )

        async def all_are_stopped() -> bool:
            return len({r.path for r in played.requests if r.path.endswith(("/control", "/stop"))}) == len(numbers)

        await trip.until(all_are_stopped)

        async def they_say_so() -> bool:
            rows = [row for c in (first, second, third, fourth) for row in (await trip.rows(c)).values()]
            return {row.state for row in rows} == {"FINISHED", "DNC"}

        await trip.until(they_say_so)
        assert [line for line in played.ledger() if line.provider_retry] == []
        for campaign in (first, second):
            assert (await trip.services.store.campaign(campaign.id)).state is CampaignState.ABORTED
        for campaign, number in ((third, numbers[2]), (fourth, numbers[3])):
            assert (await trip.rows(campaign))[number].state == "DNC"
            history = await trip.services.store.history(campaign, number)
            assert history
            assert any("took the word to stop it" in what for _, what in explain_history(history))


async def a_reply_that_says_stop_closes_the_door(trip: Journey) -> None:
    async with trip.playing("callfire") as played:
        account = await trip.account(played, "callfire", "old", REST, options=OLD)
        body = (SAMPLES / "callfire/text_stop.json").read_bytes()
        headers = {"Content-Type": "application/json"}
        assert await post(postback_address(trip.settings, account), body, headers) == 200

        async def is_listed() -> bool:
            return bool(await trip.services.store.dnc_check("+12025550103"))

        await trip.until(is_listed)


async def a_stop_that_a_dead_worker_took_is_heard_all_the_same(trip: Journey) -> None:
    async with trip.playing("callfire") as played:
        account = await trip.account(played, "callfire", "old", REST, options=OLD)
        body = (SAMPLES / "callfire/text_stop.json").read_bytes().replace(b"2025550103", b"2025550104")
        await trip.apply(account, body, tries=2)
        assert await trip.services.store.dnc_check("+12025550104")


async def who_pressed_the_key_late_is_listed_all_the_same(trip: Journey) -> None:
    """Also when the call is none of ours any more."""
    async with trip.playing("callfire") as played:
        account = await trip.account(played, "callfire", "v2", "/v2")
        action = {"id": 99, "toNumber": "12025550105", "state": "DNC", "inbound": False}
        event = {"resourceType": "OutboundCall", "eventType": "Finished", "resource": action}
        await trip.apply(account, json.dumps({"events": [event]}).encode())
        assert await trip.services.store.dnc_check("+12025550105")


async def their_do_not_call_list_and_ours(trip: Journey) -> None:
    async with trip.playing("callfire") as played:
        account = await trip.account(played, "callfire", "v2", "/v2")
        mine, theirs = some([78], 150), some([79], 120)
        assert await lists.pull(account, trip.services) == (0, 0)
        listed = DncAdd(numbers=(*mine, "+1900*"), list="mine", source="test")
        await lists.add(listed, "US", trip.services)
        assert await lists.push(account, "mine", trip.services) == (150, 1)
        await trip.services.providers.of(account).dnc_add(theirs)
        assert await lists.pull(account, trip.services) == (270, 0)
        assert await lists.pull(account, trip.services) is None
        campaign = await trip.campaign(account, theirs[:3])
        await trip.until_done(campaign)
        assert set((await trip.ends(campaign)).values()) == {"DNC"}
        assert played.ledger() == []


CASES: list[Callable[[Journey], Awaitable[None]]] = [
    nobody_who_was_listed_meanwhile_is_sent_again,
    who_is_wanted_no_more_is_not_rung_again,
    a_reply_that_says_stop_closes_the_door,
    a_stop_that_a_dead_worker_took_is_heard_all_the_same,
    who_pressed_the_key_late_is_listed_all_the_same,
    their_do_not_call_list_and_ours,
]
