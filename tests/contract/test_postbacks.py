"""The inbox: raw, once, taken with a short lease."""

from dispatcher.domain.postback import PostbackMark, PostbackState, RawPostback, unmatched
from dispatcher.ports import Store
from tests.factories import make_account


async def test_the_same_bytes_are_stored_once(store: Store) -> None:
    account = await make_account(store)
    raw = RawPostback(account_id=account.id, content_type="application/json", body=b"{}", source_ip="127.0.0.1")
    assert not (await store.upkeep()).postbacks_wait
    await store.save_postbacks([raw, raw])
    await store.save_postbacks([raw])
    assert (await store.upkeep()).postbacks_wait
    accounts, (taken,) = await store.take_postbacks(10)
    assert list(accounts) == [taken.account_id]
    assert (taken.body, taken.tries, taken.account_id) == (b"{}", 1, account.id)
    assert await store.take_postbacks(10) == ({}, [])


async def test_what_is_unmatched_comes_again_and_what_is_applied_does_not(store: Store) -> None:
    account = await make_account(store)
    await store.save_postbacks(
        [
            RawPostback(account_id=account.id, content_type="application/json", body=body, source_ip="::1")
            for body in (b"1", b"2")
        ]
    )
    _, (one, two) = await store.take_postbacks(10)
    again = PostbackMark(one.id, PostbackState.UNMATCHED, "later", 0)
    await store.settle([], [], None, [again, PostbackMark(two.id, PostbackState.APPLIED)])
    assert [(p.id, p.tries) for p in (await store.take_postbacks(10))[1]] == [(one.id, 2)]
    assert unmatched(one).state is PostbackState.UNMATCHED
