"""Who must be rung no more: the provider is asked to stop the call, until it took the word or the call is over."""

from datetime import timedelta

from dispatcher.domain.attempt import Unwanted
from dispatcher.domain.campaign import CampaignState
from dispatcher.domain.dnc import DncAdd, DncImport, Scope
from dispatcher.domain.results import Disposition as D
from dispatcher.domain.results import News, Outcome, Result, Source
from dispatcher.ports import Store
from tests.factories import claim, dial, hear, make_account, make_campaign, news, number, wait


def accepted(key: str, request: str) -> News:
    outcome = Outcome(disposition=D.IN_FLIGHT, provider_request_id=request, provider_call_id=f"call-{key}")
    return News(key, outcome, Source.SUBMIT)


def to_stop(key: str, request: str) -> Unwanted:
    return Unwanted(key, f"call-{key}", request)


async def listed(store: Store, *numbers: str) -> None:
    await store.dnc_add(DncAdd(numbers=numbers, list="l", source="s"))


async def test_a_listed_person_is_asked_for_once(store: Store) -> None:
    account = await make_account(store)
    campaign = await make_campaign(store, [number(1), number(2)], account)
    one, two = await dial(store, campaign)
    await hear(store, accepted(one.key, "a"), accepted(two.key, "b"))
    assert await store.take_cancels(account.id, 10) == []
    await listed(store, number(1))
    assert account.id in await store.accounts_to_ask()
    assert await store.take_cancels(account.id, 10) == [to_stop(one.key, "a")]
    assert await store.take_cancels(account.id, 10) == []  # somebody is at it
    await store.end_cancels([one.key], asked=True)
    await listed(store, number(1))
    assert await store.take_cancels(account.id, 10) == []
    await wait(store, 5.1)
    assert [call.key for call in await store.take_lookups(account.id, 10)] == [one.key]  # did it help?


async def test_an_aborted_campaign_is_asked_for_as_a_whole(store: Store) -> None:
    account = await make_account(store)
    campaign = await make_campaign(store, [number(1), number(2)], account)
    other = await make_campaign(store, [number(3)], account)
    one, two, three = *await dial(store, campaign), *await dial(store, other)
    await hear(store, *[accepted(row.key, row.key) for row in (one, two, three)])
    await store.move_campaign(campaign.id, CampaignState.ABORTED, actor="operator")
    assert sorted(c.key for c in await store.take_cancels(account.id, 1)) in ([one.key], [two.key])
    assert len(await store.take_cancels(account.id, 10)) == 1


async def test_nobody_else_is_stopped_with_it(store: Store) -> None:
    account = await make_account(store)
    campaign = await make_campaign(store, [number(1), number(2)], account)
    one, two = await dial(store, campaign)
    await hear(store, accepted(one.key, "same"), accepted(two.key, "same"))
    await listed(store, number(1))
    assert await store.take_cancels(account.id, 10) == []
    await hear(store, news(two.key, D.FINAL_SUCCESS, Result.LA))
    assert await again(store, account.id) == [to_stop(one.key, "same")]


async def test_a_call_that_ended_for_us_may_still_ring(store: Store) -> None:
    account = await make_account(store)
    campaign = await make_campaign(store, [number(1), number(2)], account)
    one, two = await dial(store, campaign)
    await hear(store, accepted(one.key, "a"), accepted(two.key, "b"))
    await listed(store, number(1), number(2))
    assert await hear(store, news(one.key, D.PROVIDER_RETRY), news(two.key, D.FINAL_SUCCESS, Result.LA))
    assert await store.take_cancels(account.id, 10) == [to_stop(one.key, "a")]


async def test_what_is_not_known_to_the_provider_yet_is_asked_for_later(store: Store) -> None:
    account = await make_account(store)
    campaign = await make_campaign(store, [number(1)], account)
    (one,) = await dial(store, campaign)
    await listed(store, number(1))
    assert await store.take_cancels(account.id, 10) == []
    await hear(store, accepted(one.key, "a"))
    assert await again(store, account.id) == [to_stop(one.key, "a")]


async def test_who_was_not_permitted_is_not_out(store: Store) -> None:
    account = await make_account(store)
    campaign = await make_campaign(store, [number(1)], account)
    await claim(store, campaign)
    await listed(store, number(1))
    assert account.id not in await store.accounts_to_ask()


async def test_an_import_asks_for_whom_it_names(store: Store) -> None:
    account = await make_account(store)
    campaign = await make_campaign(store, [number(1), number(2)], account)
    one, two = await dial(store, campaign)
    await hear(store, accepted(one.key, "a"), accepted(two.key, "b"))
    new = DncImport(list="l", source="s", identity="i", scope=Scope.ACCOUNT, scope_id=account.id)
    ticket = await store.dnc_begin_import(new, owner="o", lease=timedelta(minutes=1))
    await store.dnc_stage(ticket, [number(2)], lease=timedelta(minutes=1))
    await store.dnc_activate(ticket)
    assert await store.take_cancels(account.id, 10) == [to_stop(two.key, "b")]


async def again(store: Store, account_id: int) -> list[Unwanted]:
    """What was not asked for at first is looked at again two seconds later."""
    await wait(store, 2.1)
    return await store.take_cancels(account_id, 10)
