"""Who must be rung no more: the provider is asked to stop the request, until it took the word or the call is over."""

from datetime import timedelta

from dispatcher.domain.audit import AuditActor
from dispatcher.domain.campaign import CampaignState
from dispatcher.domain.dnc import DncAdd, DncImport, DncListRef, ListedNumbers, Scope
from dispatcher.domain.results import AttemptUpdate, Outcome, Result, UpdateSource
from dispatcher.domain.results import Disposition as D
from dispatcher.domain.states import State
from dispatcher.ports import Store
from tests.factories import accounts_to_ask, apply, dial, make_account, make_campaign, number, update, wait


def accepted(key: str, request: str) -> AttemptUpdate:
    return AttemptUpdate(key, Outcome(disposition=D.IN_FLIGHT, provider_request_id=request), UpdateSource.SUBMIT)


async def listed(store: Store, *numbers: str, place: DncListRef | None = None) -> None:
    at = place or DncListRef(list="l")
    new = DncAdd(numbers=numbers, list=at.list, scope=at.scope, scope_id=at.scope_id, channel=at.channel, source="s")
    await store.dnc_add(new)


async def again(store: Store, account_id: int) -> list[str]:
    """What could not be asked for at first is looked at again five seconds later."""
    await wait(store, 5.1)
    return await store.take_cancels(account_id, 10)


async def test_a_listed_person_is_asked_for_until_the_provider_took_the_word(store: Store) -> None:
    account = await make_account(store)
    campaign = await make_campaign(store, [number(1), number(2)], account)
    one, two = await dial(store, campaign)
    await apply(store, accepted(one.key, "a"), accepted(two.key, "b"))
    assert await store.take_cancels(account.id, 10) == []
    await listed(store, number(1)[:8] + "*", number(1))
    assert account.id in await accounts_to_ask(store)
    found = await store.take_cancels(account.id, 1)
    found += await store.take_cancels(account.id, 10)
    assert found == ["a", "b"]
    assert await store.take_cancels(account.id, 10) == []  # somebody is at it
    await store.stopped(account.id, ["a"])
    assert await again(store, account.id) == ["b"]
    await listed(store, number(1))
    looked = [call.key for call in await store.take_lookups(account.id, 10)]
    assert looked == [one.key]  # did it help? of the other one nothing is known sooner than ever
    assert await store.take_cancels(account.id, 10) == []


async def test_a_list_of_somebody_else_stops_nobody(store: Store) -> None:
    account, other = await make_account(store), await make_account(store, "other")
    campaign = await make_campaign(store, [number(1)], account)
    (one,) = await dial(store, campaign)
    await apply(store, accepted(one.key, "a"))
    await listed(store, number(1), place=DncListRef(list="l", scope=Scope.ACCOUNT, scope_id=other.id))
    await listed(store, number(1), place=DncListRef(list="l", channel="text"))
    assert account.id not in await accounts_to_ask(store)


async def test_an_aborted_campaign_is_asked_for_as_a_whole_after_who_is_listed(store: Store) -> None:
    account = await make_account(store)
    campaign = await make_campaign(store, [number(1), number(2)], account)
    other = await make_campaign(store, [number(3), number(4)], account)
    one, two, three, four = *await dial(store, campaign), *await dial(store, other)
    await apply(store, *[accepted(row.key, f"r{i}") for i, row in enumerate((one, two, three, four))])
    await store.move_campaign(campaign.id, CampaignState.ABORTED, actor=AuditActor.OPERATOR)
    await listed(store, number(3))
    assert await store.take_cancels(account.id, 1) == ["r2"]
    assert await store.take_cancels(account.id, 10) == ["r0", "r1"]


async def test_nobody_else_is_stopped_with_it(store: Store) -> None:
    account = await make_account(store)
    campaign = await make_campaign(store, [number(1), number(2)], account)
    one, two = await dial(store, campaign)
    await apply(store, accepted(one.key, "same"), accepted(two.key, "same"))
    await listed(store, number(1))
    assert await store.take_cancels(account.id, 10) == []
    await apply(store, update(two.key, D.FINAL_SUCCESS, Result.LA))
    assert await again(store, account.id) == ["same"]


async def test_who_may_be_in_the_same_request_is_not_stopped_either(store: Store) -> None:
    account = await make_account(store, calls_per_request=2)
    campaign = await make_campaign(store, [number(1), number(2)], account)
    one, two = await dial(store, campaign)
    await apply(store, accepted(one.key, "same"), update(two.key, D.RECONCILE, source=UpdateSource.SUBMIT))
    await listed(store, number(1))
    assert await store.take_cancels(account.id, 10) == []


async def test_a_call_that_ended_for_us_may_still_ring(store: Store) -> None:
    account = await make_account(store)
    campaign = await make_campaign(store, [number(1), number(2)], account)
    one, two = await dial(store, campaign)
    await apply(store, accepted(one.key, "a"), accepted(two.key, "b"))
    await listed(store, number(1), number(2))
    assert await apply(store, update(one.key, D.PROVIDER_RETRY), update(two.key, D.FINAL_SUCCESS, Result.LA))
    assert await store.take_cancels(account.id, 10) == ["a"]


async def test_who_is_wanted_again_is_not_stopped(store: Store) -> None:
    account = await make_account(store)
    campaign = await make_campaign(store, [number(1)], account)
    (one,) = await dial(store, campaign)
    await apply(store, accepted(one.key, "a"))
    await listed(store, number(1))
    await store.dnc_remove([number(1)], DncListRef(list="l"))
    assert await store.take_cancels(account.id, 10) == []
    assert account.id not in await accounts_to_ask(store)


async def test_what_the_provider_does_not_have_yet_is_asked_for_later(store: Store) -> None:
    account = await make_account(store)
    campaign = await make_campaign(store, [number(1)], account)
    (one,) = await dial(store, campaign)
    await listed(store, number(1))
    assert await store.take_cancels(account.id, 10) == []
    await apply(store, accepted(one.key, "a"))
    assert await again(store, account.id) == ["a"]


async def test_what_cannot_be_stopped_is_not_asked_for(store: Store) -> None:
    account = await make_account(store)
    campaign = await make_campaign(store, [number(1), number(2)], account)
    await listed(store, number(1))
    assert account.id not in await accounts_to_ask(store)
    (two,) = await dial(store, campaign)
    await listed(store, number(2))
    assert account.id in await accounts_to_ask(store)
    await store.forget_cancels(account.id)
    await apply(store, accepted(two.key, "b"))
    assert account.id not in await accounts_to_ask(store)


async def test_the_providers_own_word_needs_no_asking(store: Store) -> None:
    account = await make_account(store)
    campaign = await make_campaign(store, [number(1)], account)
    (one,) = await dial(store, campaign)
    await apply(store, accepted(one.key, "a"))
    await store.dnc_add(DncAdd(numbers=(number(1),), list="provider", source="s"), over=[one.key])
    assert account.id not in await accounts_to_ask(store)
    await apply(store, update(one.key, D.SCREENED, Result.DNC, state=State.DNC))


async def test_an_import_asks_for_whom_it_names(store: Store) -> None:
    account = await make_account(store)
    campaign = await make_campaign(store, [number(1), number(2), number(3)], account)
    rows = await dial(store, campaign)
    await apply(store, *[accepted(row.key, f"r{i}") for i, row in enumerate(rows)])
    for i, named in enumerate((number(2), number(3) + "*")):
        new = DncImport(list="l", source="s", identity=str(i), scope=Scope.ACCOUNT, scope_id=account.id)
        ticket = await store.dnc_begin_import(new, owner="o", lease=timedelta(minutes=1))
        await store.dnc_stage(ticket, ListedNumbers.of([named]), lease=timedelta(minutes=1))
        await store.dnc_activate(ticket)
        assert await store.take_cancels(account.id, 10) == [f"r{i + 1}"]
