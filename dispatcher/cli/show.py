"""How things look on a terminal, and as JSON."""

from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from rich.console import Group
from rich.table import Table

from dispatcher.domain.account import Account
from dispatcher.domain.campaign import CampaignState
from dispatcher.domain.dnc import DncEntry, DncList
from dispatcher.domain.loading import LoadReport, LoadState
from dispatcher.domain.report import Status, Violation

_SOON_S = 600


def account_document(account: Account) -> dict[str, Any]:
    window = account.dedupe_window
    spans = {
        "in_flight_ttl": account.in_flight_ttl.total_seconds(),
        "dedupe_window": window.total_seconds() if window else None,
    }
    return {**asdict(account), **spans, "rate": account.rate}


def status_table(status: Status) -> Group:
    """Progress for a person."""
    state_counts, campaign = status.state_counts, status.campaign
    share = f"{100 * state_counts.final / state_counts.total:.1f} %" if state_counts.total else "-"
    head = f"campaign {campaign.id} '{campaign.policy.name}': {campaign.state}"
    head += f" by {campaign.reason}" if campaign.reason else ""
    lines = [f"{head}, {state_counts.final} of {state_counts.total} rows final ({share}), {status.permits} permits"]
    if status.blocked_by:
        lines.append(f"blocked: {status.blocked_by}")
    if campaign.state is CampaignState.RUNNING and state_counts.final < state_counts.total:
        lines += _running_lines(status)
    lines += [f"load {x.id} of {x.source}: {x.state}, {x.error}" for x in status.loads if x.state == LoadState.FAILED]
    if any(x.state == LoadState.OPEN for x in status.loads):
        lines.append("a load is under way")
    tables = [counts("rows by state", state_counts.by_state()), counts("by result", state_counts.by_result())]
    return Group(*lines, *[t for t in tables if t.row_count])


def _running_lines(status: Status) -> list[str]:
    """What goes on now, and what comes next."""
    pace = f"{status.rate:.1f} dials a second" if status.rate is not None else "pace not measured yet"
    limit = f" of {status.limit:.1f}" if status.limit is not None else ""
    lines = [f"{pace}{limit}, {status.in_flight} in flight; account {status.account_name} is {status.account_state}"]
    if status.next_due_at:
        lines.append(f"next row due {_when(status.next_due_at)}")
    if status.retry_due_at:
        lines.append(f"first redial due {_when(status.retry_due_at)}")
    if status.provider_retries:
        lines.append(f"{status.provider_retries} are dialled again by the provider itself")
    if status.person_busy:
        lines.append(f"{status.person_busy} wait because another campaign is calling the person")
    return lines


def _when(at: datetime) -> str:
    wait = (at - datetime.now(UTC)).total_seconds()
    return "now" if wait <= 0 else f"in {wait:.0f} s" if wait < _SOON_S else f"at {at:%F %H:%M %Z}"


def counts(title: str, numbers: Mapping[Any, int], total: bool = False) -> Table:
    """A small table of counts."""
    table = Table(title=title, title_justify="left", min_width=len(title), show_header=False, box=None, pad_edge=False)
    table.add_column(min_width=26, no_wrap=True)
    table.add_column(justify="right")
    for name, n in numbers.items():
        table.add_row(str(name), str(n))
    if total:
        table.add_row("sum", str(sum(numbers.values())), style="bold")
    return table


def listing(columns: list[str], rows: list[list[Any]]) -> Table:
    """A plain table."""
    table = Table(*columns, box=None, pad_edge=False)
    for row in rows:
        table.add_row(*["-" if value is None else str(value) for value in row])
    return table


def load_lines(report: LoadReport, dry_run: bool = False) -> Group:
    """What a load made of its records."""
    said = "these records were loaded before; nothing was changed" if report.was_done else "loaded"
    head = "dry run: nothing was loaded" if dry_run else f"load {report.load_id}: {said}"
    return Group(head, counts("records", {str(s): n for s, n in report.rows.items()}, True))


def entry_document(entry: DncEntry | DncList) -> dict[str, Any]:
    return asdict(entry)


def violations(found: list[Violation]) -> Table:
    return listing(["invariant", "culprit"], [[v.invariant, v.culprit] for v in found])
