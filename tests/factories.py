"""Things that tests need, with every detail they do not care about filled in."""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from itertools import count
from types import SimpleNamespace
from typing import Any

from dispatcher.domain.account import Account, NewAccount
from dispatcher.domain.attempt import Shift, write_key
from dispatcher.domain.audit import AuditActor
from dispatcher.domain.campaign import Campaign, CampaignState, Policy, read_policy
from dispatcher.domain.loading import Deduplicated, Deduplicator, LoadReport
from dispatcher.domain.permitting import PermitRequest, Permits, Permitted, Terms
from dispatcher.domain.report import ExportFormat
from dispatcher.domain.results import AttemptUpdate, Disposition, Outcome, Result, UpdateSource
from dispatcher.domain.screening import Record, Screened, make_screen
from dispatcher.domain.steps import Ignore
from dispatcher.domain.tick import DueWork, mark_due
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
    screen = make_screen(["phone", "name"], campaign.policy)
    return [screen(Record(line, {"phone": text, "name": f"Ada {line}"})) for line, text in enumerate(numbers, 2)]


def deduplicated(campaign: Campaign, numbers: Sequence[str]) -> Deduplicated:
    """These texts as one block of a load."""
    return Deduplicator().split(screened(campaign, numbers))


async def load(store: Store, campaign: Campaign, numbers: Sequence[str], identity: str = "1" * 64) -> LoadReport:
    """Load these texts as numbers, one a line from line 2."""
    ticket = await store.begin_load(campaign, identity, "test.csv", owner="loader", lease=LEASE)
    if ticket.is_done:
        return await store.load_report(ticket)
    await store.stage(ticket, deduplicated(campaign, numbers), lease=LEASE)
    return await store.finish_load(ticket, lease=LEASE)


async def exported(store: Store, campaign: Campaign) -> list[SimpleNamespace]:
    """The campaign's destinations, as an export tells them."""
    lines = b"".join([lines async for _, lines in store.export(campaign, ExportFormat.JSONL)])
    return [SimpleNamespace(**json.loads(line)) for line in lines.decode().split("\n") if line]


async def make_campaign(
    store: Store, numbers: Sequence[str] = (), account: Account | None = None, **changes: Any
) -> Campaign:
    """A RUNNING campaign with these numbers, marked as due."""
    account = account or await make_account(store)
    campaign = await store.create_campaign(account.id, make_policy(**changes))
    if numbers:
        await load(store, campaign, numbers)
    campaign = await store.move_campaign(campaign.id, CampaignState.RUNNING, actor=AuditActor.OPERATOR)
    await tick(store)
    return campaign


async def tick(store: Store) -> None:
    """Look at what has moved, as the tick does."""
    looked = [c for c in (await store.upkeep()).moved if c.state is CampaignState.RUNNING]
    await store.mark_due([mark_due(head) for head in await store.due_heads(looked)])


def new_keys(n: int) -> list[str]:
    return [write_key(next(_KEYS)) for _ in range(n)]


async def due_work(store: Store, campaign: Campaign) -> DueWork | None:
    """What a shift sees of the campaign."""
    await tick(store)
    _, work = await store.due_work(campaign.account_id, 100)
    return next((w for w in work if w.campaign_id == campaign.id), None)


def ask_for(campaign: Campaign, shift: Shift, n: int = 10, *, part: int = 0, **changes: Any) -> PermitRequest:
    """A request for up to `n` rows of the campaign, whether it seems to have work or not."""
    work = DueWork(campaign.id, part, campaign.policy.weight, campaign.policy_version, campaign.policy, n)
    values: dict[str, Any] = {
        "shift": shift,
        "work": work,
        "caller_id": "+12025550199",
        "keys": tuple(new_keys(n)),
        "retries": n // 2,
        "terms": Terms.of(campaign.policy, campaign.policy_version, datetime.now(UTC)),
        "lease": LEASE,
        **changes,
    }
    return PermitRequest(**values)


@asynccontextmanager
async def a_shift(store: Store, campaign: Campaign, owner: str = "w") -> AsyncIterator[Shift]:
    """A place of the campaign's account."""
    shift = await store.take_shift(campaign.account_id, owner, LEASE)
    assert shift
    try:
        yield shift
    finally:
        await store.leave_shift(shift)


async def permit(store: Store, campaign: Campaign, n: int = 10, **changes: Any) -> Permits:
    """Ask for up to `n` rows, in a shift of its own."""
    campaign = await store.campaign(campaign.id)
    async with a_shift(store, campaign) as shift:
        return await store.permit(ask_for(campaign, shift, n, part=campaign.part, **changes))


async def dial(store: Store, campaign: Campaign, n: int = 10, **changes: Any) -> tuple[Permitted, ...]:
    """Permit; there must be rows."""
    granted = (await permit(store, campaign, n, **changes)).granted
    assert granted
    return granted


async def expired(store: Store) -> list[AttemptUpdate]:
    """News for the reaper."""
    gone = Outcome(disposition=Disposition.LEASE_OVER)
    return [AttemptUpdate(key, gone, UpdateSource.REAPER) for key in (await store.upkeep()).expired]


async def accounts_to_ask(store: Store) -> tuple[int, ...]:
    """Accounts with something that it is time to ask the provider."""
    return (await store.upkeep()).accounts_to_ask


def update(
    key: str,
    disposition: Disposition,
    result: Result | None = None,
    source: UpdateSource = UpdateSource.POSTBACK,
    **details: Any,
) -> AttemptUpdate:
    return AttemptUpdate(key, Outcome(disposition=disposition, result=result, **details), source)


async def apply(store: Store, *items: AttemptUpdate, draw: float = 0.5) -> list[str]:
    """Settle; gives the names of the steps (an ignored one by its reason)."""
    decisions = await store.settle(items, [draw] * len(items))
    return [str(d.step.reason if isinstance(d.step, Ignore) else d.step.kind) for d in decisions]


async def states(store: Store, campaign: Campaign) -> dict[str, int]:
    """Rows by 'STATE' or 'STATE RESULT'."""
    state_counts = (await store.status(campaign)).state_counts
    return {f"{state} {result or ''}".strip(): n for (state, result), n in state_counts.rows.items() if n}


async def wait(store: Store, seconds: float) -> None:
    """Let time pass: PostgreSQL's, or that of a memory whose clock goes on when it is read."""
    if isinstance(store, MemoryStore):
        for _ in range(int(seconds / 0.002)):
            store.clock()
    else:
        await asyncio.sleep(seconds)
