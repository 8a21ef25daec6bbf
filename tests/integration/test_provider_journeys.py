"""What only some providers have: several calls a request, resending, retries of their own, texts, cancelling."""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from pathlib import Path

import pytest

from dispatcher.bootstrap import Urls, callback_url, secret_key
from dispatcher.cli.accounts import postback_address
from dispatcher.domain.account import AccountState
from dispatcher.domain.campaign import CampaignState
from dispatcher.domain.postback_address import postback_secret, request_url
from dispatcher.flow import control
from dispatcher.flow.verify_account import verify_account
from dispatcher.providers.registry import SPECS
from dispatcher.simulator.server import post, serve
from tests.inprocess import FLOW, OLD, PLAIN, REST, SAMPLES, Journey, Played, journey, some
from tests.integration import journeys_of_lists
from tests.toy.client import SPEC as TOY
from tests.toy.played import PlayedToy

pytestmark = pytest.mark.timeout(300)


@pytest.fixture
async def trip(urls: Urls, tmp_path: Path) -> AsyncIterator[Journey]:
    async with journey(urls, tmp_path) as made:
        yield made


async def several_calls_in_one_request_are_dialled_once_each(trip: Journey) -> None:
    cases = [
        ("v2", "callfire", "/v2", {}, "/v2/calls", ""),
        ("old", "callfire", REST, OLD, f"{REST}/broadcast", ""),
        ("batch", "callfire", "/v2", {"route": "batch"}, "/v2/calls/broadcasts", ""),
        ("fortytwo", "fortytwo", "", {}, "/1/voice", "[provider]\nmost_destinations = 4\n"),
        ("phonon", "phonon", "", FLOW, "/kairos-apis/outbound", ""),
        ("bulk", "phonon", "/bulk", {**FLOW, "mode": "bulk"}, "/bulk/kairos-apis/outbound", ""),
    ]
    running = []
    for name, provider, path, options, posts, scenario in cases:
        played = await trip.stack.enter_async_context(trip.playing(provider, scenario))
        account = await trip.account(played, provider, name, path, options=options, calls_per_request=10)
        campaign = await trip.campaign(account, some(PLAIN, 50))
        running.append((name, played, posts, campaign))
    await trip.until_done(*(campaign for *_, campaign in running))
    for name, played, posts, campaign in running:
        check = await trip.check(played, campaign)
        assert (check.unknown_keys, check.doubled_keys, check.after_final) == ((), (), ()), name
        ends = Counter((await trip.ends(campaign)).values())
        assert ends["FINISHED LA"] >= 32, (name, ends)
        assert sum(n for end, n in ends.items() if end.startswith("TIMEOUT")) <= 6, (name, ends)
        assert played.count("POST", posts) < 40, (name, played.count("POST", posts))


async def what_was_lost_is_sent_again_byte_for_byte_where_that_was_proved(trip: Journey) -> None:
    async with trip.playing("phonon") as played:
        account = await trip.account(played, "phonon", "phonon", options=FLOW, calls_per_request=3)
        found = await verify_account(account, "+12025550100", timedelta(seconds=2), trip.services)
        assert (found.objection, found.dedupe_window, found.dialled) == (None, timedelta(seconds=2), True)
        assert abs(found.clock_off_s or 9) < 3
        await trip.services.store.record_dedupe_window(account.id, timedelta(minutes=10))
        # 90: taken, and the answer lost; 92: refused with an error; 93: taken, and answered with an error
        numbers = some([90, 92, 93, 5], 40)
        waits = {"unknown": "90s", "accepted": "60s", "provider_retry": "60s"}
        campaign = await trip.campaign(account, numbers, timeouts=waits)
        await trip.until_done(campaign)
        assert set((await trip.ends(campaign)).values()) == {"FINISHED LA"}
        check = await trip.check(played, campaign)
        assert (check.doubled_keys, check.after_final, check.missing) == ((), (), ())
        bodies = Counter(r.body for r in played.requests if r.path.endswith("/create"))
        assert any(n > 1 for n in bodies.values())


async def the_providers_own_reattempts_are_never_overlapped(trip: Journey) -> None:
    running = []
    for name, provider, path, options in [
        ("v2", "callfire", "/v2", {}),
        ("old", "callfire", REST, OLD),
        ("phonon", "phonon", "", FLOW),
        ("bulk", "phonon", "/bulk", {**FLOW, "mode": "bulk"}),
    ]:
        played = await trip.stack.enter_async_context(trip.playing(provider))
        account = await trip.account(played, provider, name, path, options=options)
        numbers = some([80, 81, 82, 83], 12)
        running.append((name, played, numbers, await trip.campaign(account, numbers)))
    await trip.until_done(*(campaign for *_, campaign in running))
    for name, played, numbers, campaign in running:
        ours = Counter(line.number for line in played.ledger() if not line.provider_retry)
        theirs = Counter(line.number for line in played.ledger() if line.provider_retry)
        assert ours == Counter(numbers), name
        assert theirs == Counter(n for n in numbers if not n.endswith("83")), name
        ends = await trip.ends(campaign)
        assert {ends[n] for n in numbers if n.endswith("83")} == {"TIMEOUT"}, name
        assert {ends[n] for n in numbers if not n.endswith("83")} == {"FINISHED LA"}, name


async def a_reattempt_that_ended_without_a_result_is_taken_over_when_the_policy_says_so(trip: Journey) -> None:
    scenario = '[[number]]\ndigits = "80"\ntrick = "OWN_RETRY_LOST"\n'
    # wide apart: on a loaded machine, news of the reattempt may take many seconds, and must come before its end
    async with trip.playing("callfire", scenario, reattempt=25) as played:
        account = await trip.account(played, "callfire", "v2", "/v2")
        taken, left = some([80], 1), some([80], 1)
        waits = {"unknown": "10s", "accepted": "40s", "provider_retry": "60s"}
        over = await trip.campaign(account, taken, timeouts={**waits, "take_over": "30s"})
        never = await trip.campaign(account, left, timeouts=waits)
        await trip.until_done(over, never)
        dials = {n: [x.at for x in played.ledger() if x.number == n] for n in (*taken, *left)}
        assert len(dials[left[0]]) == 1
        first, second = dials[taken[0]]
        assert second - first >= 30 - 3  # counted from the permit, which may be three seconds old
        assert await trip.ends(over) == {taken[0]: "TIMEOUT"}
        assert await trip.ends(never) == {left[0]: "TIMEOUT"}


async def texts(trip: Journey) -> None:
    running = []
    faces = [("v2", "/v2", {}, "67076"), ("old", REST, OLD, "+12025550199")]
    for name, path, options, caller in faces:
        played = await trip.stack.enter_async_context(trip.playing("callfire"))
        account = await trip.account(played, "callfire", name, path, options=options)
        numbers = some([5, 75, 78, 86, 90, 93], 18)
        campaign = await trip.campaign(account, numbers, channel="text", caller_ids=[caller], content={"text": "Hi"})
        running.append((name, played, numbers, campaign))
    await trip.until_done(*(campaign for *_, campaign in running))
    ended = {5: "FINISHED SENT", 75: "INVALID UNDIALED", 78: "DNC DNC", 86: "FINISHED SENT"}
    for name, played, numbers, campaign in running:
        ends = await trip.ends(campaign)
        assert ends == {n: ended.get(int(n[-2:]), "FINISHED SENT") for n in numbers}, name
        assert (await trip.check(played, campaign)).is_clean, name


async def what_a_provider_says_of_an_account_is_heard_once(trip: Journey) -> None:
    """Also when it came with a report that matches nothing, and is tried again for that."""
    async with trip.playing("callfire") as played:
        account = await trip.account(played, "callfire", "old", REST, options=OLD)
        stopped = {"resourceType": "LowBalance", "eventType": "Finished"}
        body = json.dumps({"events": [stopped]}).encode()
        for tries in (2, 1):
            await trip.apply(account, body, tries)
            state = (await trip.services.store.account(account.id)).state
            assert (state is AccountState.STOPPED) == (tries == 1)


async def a_refused_configuration_pauses_one_campaign_and_says_why(trip: Journey) -> None:
    async with trip.playing("fortytwo") as played:
        account = await trip.account(played, "fortytwo", "fortytwo")
        wrong = await trip.campaign(account, some([5], 4), content={"text": "Hi", "voice": "NOBODY"})
        right = await trip.campaign(account, some([5], 4))
        await trip.until_done(right)

        async def is_paused_and_nobody_was_charged() -> bool:
            rows = {(r.state, r.dials) for r in (await trip.rows(wrong)).values()}
            paused = (await trip.services.store.campaign(wrong.id)).state is CampaignState.PAUSED
            return paused and rows == {("READY", 0)}

        await trip.until(is_paused_and_nobody_was_charged)
        status = await trip.services.store.status(await trip.services.store.campaign(wrong.id))
        assert status.campaign.reason == "config (CODE -96)"
        assert (status.blocked_by or "").startswith("REFUSED by the provider, config (CODE -96); mend the account")
        await control.abort(wrong.id, trip.services)
        assert (await trip.services.store.status(await trip.services.store.campaign(wrong.id))).blocked_by is None


async def calls_that_say_something_else_to_everybody_are_lost_by_no_slot(trip: Journey) -> None:
    """Where all calls of a request must say the same."""
    running = []
    for provider, path, options in [("fortytwo", "", {}), ("callfire", REST, OLD)]:
        played = await trip.stack.enter_async_context(trip.playing(provider))
        account = await trip.account(played, provider, "personal", path, options=options, calls_per_request=10, cps=40)
        campaign = await trip.campaign(account, some([5], 30), content={"text": "Hi {name}"}, cps=40)
        running.append((played, campaign))
    await trip.until_done(*(campaign for _, campaign in running))
    for played, campaign in running:
        assert set((await trip.ends(campaign)).values()) == {"FINISHED LA"}
        assert len(played.ledger()) == 30


async def who_is_in_doubt_ends_also_when_the_credentials_are_gone(trip: Journey) -> None:
    async with trip.playing("callfire") as played:
        account = await trip.account(played, "callfire", "v2", "/v2")
        (number,) = some([84], 1)
        campaign = await trip.campaign(account, [number])

        async def is_accepted() -> bool:
            return bool(await trip.out(campaign))

        await trip.until(is_accepted)
        (trip.settings.data_folder / f"{account.name}.credentials").unlink()
        await trip.until_done(campaign)
        assert await trip.ends(campaign) == {number: "TIMEOUT"}


async def the_address_of_one_request_is_of_no_use_for_another(trip: Journey) -> None:
    async with trip.playing("fortytwo") as played:
        account = await trip.account(played, "fortytwo", "fortytwo")
        campaign = await trip.campaign(account, some([84], 1))

        async def is_sent() -> bool:
            return bool(await trip.out(campaign))

        await trip.until(is_sent)
        (key,) = await trip.out(campaign)
        (to,) = await trip.rows(campaign)
        said = (SAMPLES / "fortytwo/answered.json").read_text().replace("0123456789abc", key)
        body = said.replace("35699000001", to.lstrip("+")).encode()
        headers = {"Content-Type": "application/json"}
        forged = request_url(trip.settings.web.local_url, b"another secret of 32 bytes or more", account, key)
        assert await post(forged, body, headers) == 404
        assert await post(callback_url(trip.settings, account, "0123456789abc"), body, headers) == 200
        assert await post(callback_url(trip.settings, account, key) + "x", body, headers) == 404
        for _ in range(5):
            await trip.services.broker.settle_postbacks()
            await asyncio.sleep(0.1)
        assert (await trip.rows(campaign))[to].state == "SELECTED"
        assert await post(callback_url(trip.settings, account, key), body, headers) == 200
        await trip.until_done(campaign)
        assert await trip.ends(campaign) == {to: "FINISHED LA"}


async def a_fourth_provider_is_a_folder_and_a_line(trip: Journey) -> None:
    toy = PlayedToy()
    SPECS["toy"] = TOY  # the line
    server = await serve(toy.handle, "127.0.0.1", 0)
    try:
        played = Played(server.sockets[0].getsockname()[1], Path("-"), [])
        account = await trip.account(played, "toy", "toy", calls_per_request=5)
        toy.hook = postback_address(trip.settings, account)
        toy.secret = postback_secret(secret_key(trip.settings), account.name)
        numbers = some([1, 5, 9], 30)
        campaign = await trip.campaign(account, numbers)
        await trip.until_done(campaign)
        ends = {"1": "FINISHED LA", "5": "FINISHED LA", "9": "INVALID UNDIALED"}
        assert await trip.ends(campaign) == {n: ends[n[-1]] for n in numbers}
        assert Counter(toy.rung) == {n: 1 + n.endswith("5") for n in numbers if not n.endswith("9")}
    finally:
        server.close()
        del SPECS["toy"]


CASES: list[Callable[[Journey], Awaitable[None]]] = [
    *journeys_of_lists.CASES,
    several_calls_in_one_request_are_dialled_once_each,
    what_was_lost_is_sent_again_byte_for_byte_where_that_was_proved,
    the_providers_own_reattempts_are_never_overlapped,
    a_reattempt_that_ended_without_a_result_is_taken_over_when_the_policy_says_so,
    texts,
    what_a_provider_says_of_an_account_is_heard_once,
    a_refused_configuration_pauses_one_campaign_and_says_why,
    calls_that_say_something_else_to_everybody_are_lost_by_no_slot,
    who_is_in_doubt_ends_also_when_the_credentials_are_gone,
    a_fourth_provider_is_a_folder_and_a_line,
    the_address_of_one_request_is_of_no_use_for_another,
]


async def test_journeys(trip: Journey) -> None:
    """All at once, each with providers and accounts of its own: they mostly wait."""
    found = await asyncio.gather(*(case(trip) for case in CASES), return_exceptions=True)
    failed = {case.__name__: error for case, error in zip(CASES, found, strict=True) if error}
    for error in failed.values():
        raise BaseExceptionGroup(", ".join(failed), list(failed.values())) from error  # all of them, by name
