"""Figures of a campaign for people: they add up, or `verify` says where not."""

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from dispatcher.domain.campaign import Campaign, CampaignState
from dispatcher.domain.counters import StateCounts
from dispatcher.domain.loading import LoadState, Reject


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadSummary:
    """A load as status shows it."""

    id: int
    source: str
    state: LoadState
    rows: int | None
    error: str | None
    created_at: datetime
    finished_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far a campaign is: read from counters, never by counting rows."""

    campaign: Campaign
    state_counts: StateCounts
    blocked_by: str | None
    rate: float | None = None
    """Permits a second over the last seconds; None when nobody measured."""
    account_name: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Status(Progress):
    """All that can be said about a campaign in figures."""

    permits: int
    redials: Mapping[str, int]
    """How often destinations were scheduled to be dialled again, by the result that caused it."""
    requeues: Mapping[str, int]
    """How often destinations were put back without being charged, by reason."""
    next_due_at: datetime | None
    limit: float | None = None
    """What the account and the campaign allow together now."""
    in_flight: int = 0
    """Calls without a result that we wait for; not those that the provider dials again by itself."""
    provider_retries: int = 0
    """Calls that the provider said it dials again by itself."""
    retry_due_at: datetime | None = None
    """When the first redial of ours is due."""
    person_busy: int = 0
    """Waiting rows whose person another campaign is calling."""
    loads: tuple[LoadSummary, ...] = ()
    """The newest first, twenty at most."""
    account_state: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProgressRow:
    """A campaign as flower shows it: one row, updated in place."""

    campaign_id: int
    about: str
    progress: str
    """The most important first: a table shows some forty characters."""
    is_over: bool
    seconds: float
    """Since it was created."""


def progress_row(found: Progress, now: datetime) -> ProgressRow:
    """Progress in one line; digits of a name that could be a number are not shown."""
    campaign, state_counts = found.campaign, found.state_counts
    share = f"{100 * state_counts.final / state_counts.total:.0f} %" if state_counts.total else "-"
    results = " ".join(f"{result} {n}" for result, n in state_counts.by_result().items())
    pace = f"{found.rate:.1f}/s" if found.rate is not None else campaign.state.lower()
    said = [
        f"{state_counts.final}/{state_counts.total} {share}",
        pace,
        results,
        f"blocked: {found.blocked_by}" * bool(found.blocked_by),
    ]
    return ProgressRow(
        campaign_id=campaign.id,
        about=f"{campaign.id} '{re.sub(r'[0-9]{7,}', '***', campaign.policy.name)}' on {found.account_name}",
        progress=" | ".join(part for part in said if part),
        is_over=campaign.state in (CampaignState.DONE, CampaignState.ABORTED),
        seconds=(now - campaign.created_at).total_seconds(),
    )


@dataclass(frozen=True, slots=True)
class Violation:
    """One row of an invariant that does not hold."""

    invariant: str
    culprit: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptKey:
    """One attempt of a campaign, to be compared with a provider's ledger."""

    key: str
    permitted: bool
    was_dialled: bool
    """The provider said that it placed this call."""
    fate: str
    """What became of it: its disposition, or the phase that it is in."""


class ExportFormat(StrEnum):
    """How the store writes an export."""

    CSV = "csv"
    """A line for each destination, without a header: EXPORT_COLUMNS, then the variables that were asked for."""
    JSONL = "jsonl"
    """An object for each: EXPORT_COLUMNS, and all `variables`."""


EXPORT_COLUMNS = (
    *("line", "source", "raw", "e164", "state", "result", "reason", "dials"),
    *("first_dialled_at", "finished_at", "due_at"),
)
"""`due_at` only while a destination waits to be dialled."""


def campaign_document(campaign: Campaign) -> dict[str, Any]:
    """What programs are told of a campaign."""
    return {
        "id": campaign.id,
        "name": campaign.policy.name,
        "state": campaign.state,
        "reason": campaign.reason,
        "account": campaign.policy.account,
        "created_at": campaign.created_at,
        "purged_at": campaign.purged_at,
    }


def status_document(status: Status) -> dict[str, Any]:
    """Counts that add up: `rows` is the number of records that were loaded."""
    return {
        **campaign_document(status.campaign),
        "rows": status.state_counts.total,
        "final": status.state_counts.final,
        "by_state": status.state_counts.by_state(),
        "by_result": status.state_counts.by_result(),
        "permits": status.permits,
        "redials": dict(status.redials),
        "put_backs": dict(status.requeues),
        "rate": status.rate,
        "limit": status.limit,
        "in_flight": status.in_flight,
        "provider_retries": status.provider_retries,
        "retry_due_at": status.retry_due_at,
        "person_busy": status.person_busy,
        "account_state": status.account_state,
        "next_due_at": status.next_due_at,
        "blocked_by": status.blocked_by,
        "loads": [asdict(load) for load in status.loads],
    }


def safe_cell(cell: str) -> str:
    """A cell that no spreadsheet runs as a formula, on none of its lines (OWASP: CSV injection)."""
    lines = cell.splitlines() or [cell]
    return (
        f"'{cell}"
        if any(line.lstrip().startswith(("=", "+", "-", "@")) for line in lines) or cell.startswith(("\t", "\r"))
        else cell
    )


REJECT_COLUMNS = ("line", "raw", "e164", "state", "reason", "see")


def reject_cells(reject: Reject) -> list[str]:
    """A line of the reject file."""
    reason, see = reject.why
    return [str(reject.line), safe_cell(reject.raw), reject.e164 or "", reject.state, reason, safe_cell(see)]
