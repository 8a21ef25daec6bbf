"""Things that tests need, with every detail they do not care about filled in."""

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from itertools import count
from typing import Any

from dispatcher.domain.account import Account, NewAccount
from dispatcher.domain.attempt import Claimed, write_key
from dispatcher.domain.campaign import Campaign, CampaignState, Policy, read_policy
from dispatcher.domain.loading import LoadReport
from dispatcher.domain.results import Disposition, News, Outcome, Result, Source
from dispatcher.domain.screening import Record, Screened, map_columns, screen
from dispatcher.domain.tick import mark_due
from dispatcher.ports import Store
from tests.memory import MemoryStore

LEASE = timedelta(seconds=30)
OVER = timedelta(seconds=-1)
_KEYS = count(1)

FILE: dict[str, Any] = {
    "name": "spring reminders",
    "account": "main",
    "regions_allowed": ["US"],
    "caller_ids": ["+12025550199"],
    "content": {"text": "Hello {name}"},
}


def number(i: int) -> str:
    """The i-th fictional number."""
    return f"+1202555{i:04d}"


def make_policy(**changes: Any) -> Policy:
    return read_policy({**FILE, **changes})


async def make_account(store: Store, name: str = "main", **changes: Any) -> Account:
    values: dict[str, Any] = {
        "name": name,
        "provider": "callfire",
        "base_url": "http://127.0.0.1:1/v2",
        "credentials": "env:X",
        "cps": 100.0,
        **changes,
    }
    return await store.add_account(NewAccount(**values))


def screened(campaign: Campaign, numbers: Sequence[str]) -> list[Screened]:
    """These texts as numbers, one a line from line 2."""
    places = map_columns(["phone", "name"], campaign.policy)
    records = [Record(line, {"phone": text, "name": f"Ada {line}"}) for line, text in enumerate(numbers, 2)]
    return [screen(r, campaign.policy, places) for r in records]


async def load(store: Store, campaign: Campaign, numbers: Sequence[str], identity: str = "1" * 64) -> LoadReport:
    """Load these texts as numbers, one a line from line 2."""
    ticket = await store.begin_load(campaign, identity, "test.csv", owner="loader", lease=LEASE)
    if ticket.is_done:
        return await store.load_report(ticket)
    await store.stage(ticket, screened(campaign, numbers), lease=LEASE)
    return await store.finish_load(ticket)


async def make_campaign(
    store: Store, numbers: Sequence[str] = (), account: Account | None = None, **changes: Any
) -> Campaign:
    """A RUNNING campaign with these numbers, marked as due."""
    account = account or await make_account(store)
    campaign = await store.create_campaign(account.id, make_policy(**changes))
    if numbers:
        await load(store, campaign, numbers)
    campaign = await store.move_campaign(campaign.id, CampaignState.RUNNING, actor="operator")
    await tick(store)
    return campaign


async def tick(store: Store) -> None:
    await store.mark_due([mark_due(head) for head in await store.due_heads()])


def new_keys(n: int) -> list[str]:
    return [write_key(next(_KEYS)) for _ in range(n)]


async def claim(
    store: Store, campaign: Campaign, n: int = 10, *, retries: int = 5, owner: str = "w", lease: timedelta = LEASE
) -> list[Claimed]:
    await tick(store)
    work = [w for w in await store.due_work(campaign.account_id, 100) if w.campaign_id == campaign.id]
    if not work:
        return []
    return await store.claim(
        work[0], campaign.account_id, new_keys(n), caller_id="+12025550199", retries=retries, owner=owner, lease=lease
    )


async def permit(
    store: Store, campaign: Campaign, rows: Sequence[Claimed], *, owner: str = "w", lease: timedelta = LEASE
) -> set[str]:
    granted, _ = await store.permit(campaign.account_id, rows, owner=owner, lease=lease)
    return granted


async def dial(store: Store, campaign: Campaign, n: int = 10) -> list[Claimed]:
    """Claim and permit; every row must be granted."""
    rows = await claim(store, campaign, n)
    assert await permit(store, campaign, rows) == {r.key for r in rows}
    return rows


def news(
    key: str,
    disposition: Disposition,
    result: Result | None = None,
    source: Source = Source.POSTBACK,
    **details: Any,
) -> News:
    return News(key, Outcome(disposition=disposition, result=result, **details), source)


async def hear(store: Store, *items: News, draw: float = 0.5) -> list[str]:
    """Settle; gives the names of the steps (an ignored one by its reason)."""
    decisions = await store.settle(items, [draw] * len(items))
    return [getattr(d.step, "why", type(d.step).__name__) for d in decisions]


async def states(store: Store, campaign: Campaign) -> dict[str, int]:
    """Rows by 'STATE' or 'STATE RESULT'."""
    tally = (await store.status(campaign)).tally
    return {f"{state} {result or ''}".strip(): n for (state, result), n in tally.rows.items() if n}


async def wait(store: Store, seconds: float) -> None:
    """Let time pass: PostgreSQL's, or that of a memory whose clock goes on when it is read."""
    if isinstance(store, MemoryStore):
        for _ in range(int(seconds / 0.002)):
            store.clock()
    else:
        await asyncio.sleep(seconds)
