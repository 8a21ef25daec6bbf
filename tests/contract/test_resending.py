"""Lost requests are kept only where they can be of use, and given out only while nothing can go wrong by it."""

from datetime import timedelta

from dispatcher.domain.results import (
    AttemptUpdate,
    CallReport,
    Channel,
    Disposition,
    LostRequest,
    Outcome,
    Result,
    UpdateSource,
)
from dispatcher.ports import Store
from tests.factories import accounts_to_ask, apply, dial, make_account, make_campaign, number, update

WINDOW = timedelta(hours=1)


def frozen(*keys: str) -> LostRequest:
    return LostRequest(digest="d" * 64, body=b"{}", keys=keys)


async def test_without_a_proof_nothing_is_kept(store: Store) -> None:
    account = await make_account(store)
    await store.keep_lost_requests(account.id, [frozen("0123456789abc")])
    await store.record_dedupe_window(account.id, WINDOW)
    assert await store.take_lost_requests(account.id, 10) == []
    assert account.id not in await accounts_to_ask(store)


async def test_a_proof_holds_for_what_was_probed_only(store: Store) -> None:
    account = await make_account(store)
    await store.record_dedupe_window(account.id, WINDOW)
    assert (await store.edit_account(account.id, {"cps": 7.0})).dedupe_window == WINDOW
    assert (await store.edit_account(account.id, {"options": {"flow": "other"}})).dedupe_window is None
    await store.record_dedupe_window(account.id, WINDOW)
    assert (await store.edit_account(account.id, {"base_url": "http://other.example"})).dedupe_window is None


async def test_only_doubtful_calls_may_be_asked_for_again(store: Store) -> None:
    account = await make_account(store)
    await store.record_dedupe_window(account.id, WINDOW)
    campaign = await make_campaign(store, [number(1), number(2)], account)
    one, two = await dial(store, campaign)
    both = frozen(one.key, two.key)
    await apply(store, update(one.key, Disposition.RECONCILE, source=UpdateSource.SUBMIT))
    assert await store.may_resend(account.id, both) is None  # the other's answer is still awaited
    await apply(store, update(two.key, Disposition.RECONCILE, source=UpdateSource.SUBMIT))
    calls = await store.may_resend(account.id, both)
    assert calls
    assert sorted(c.key for c in calls) == sorted([one.key, two.key])
    await store.record_dedupe_window(account.id, timedelta(microseconds=2))
    assert await store.may_resend(account.id, both) is None  # too late for what was proved


async def test_what_was_kept_ends_when_the_proof_is_withdrawn(store: Store) -> None:
    account = await make_account(store)
    await store.record_dedupe_window(account.id, timedelta(minutes=10))
    campaign = await make_campaign(store, [number(1)], account)
    (one,) = await dial(store, campaign)
    await store.keep_lost_requests(account.id, [LostRequest(digest="d", body=b"x", keys=(one.key,))])
    await store.record_dedupe_window(account.id, None)
    assert await store.take_lost_requests(account.id, 10) == []


async def test_late_news_of_a_request_finds_a_closed_call_that_never_had_an_id(store: Store) -> None:
    account = await make_account(store)
    campaign = await make_campaign(store, [number(1)], account)
    (mine,) = await dial(store, campaign)
    accepted = Outcome(disposition=Disposition.IN_FLIGHT, provider_request_id="request-1")
    await apply(store, AttemptUpdate(mine.key, accepted, UpdateSource.SUBMIT))
    over = Outcome(disposition=Disposition.FINAL_SUCCESS, result=Result.LA)
    await apply(store, AttemptUpdate(mine.key, over, UpdateSource.POSTBACK))
    outcome = Outcome(disposition=Disposition.FINAL_SUCCESS, result=Result.LA, provider_call_id="call-1")
    report = CallReport(outcome=outcome, to=number(1), request_id="request-1")
    assert [at and at.key for at in await store.match(account.id, [report])] == [mine.key]


async def test_a_request_and_a_number_find_an_open_call_of_no_other_id(store: Store) -> None:
    account = await make_account(store)
    campaign = await make_campaign(store, [number(1)], account)
    (mine,) = await dial(store, campaign)
    theirs = Outcome(disposition=Disposition.IN_FLIGHT, provider_call_id="call-1", provider_request_id="request-1")
    await apply(store, AttemptUpdate(mine.key, theirs, UpdateSource.SUBMIT))

    async def found(call: str, channel: Channel = Channel.VOICE) -> str | None:
        outcome = Outcome(disposition=Disposition.IN_FLIGHT, provider_call_id=call)
        report = CallReport(outcome=outcome, to=number(1), request_id="request-1", channel=channel)
        (at,) = await store.match(account.id, [report])
        return at.key if at else None

    assert await found("call-1") == mine.key
    assert await found("call-1", Channel.TEXT) is None
    assert await found("call-2") is None
