"""Figures for people, and the invariants."""

from collections.abc import AsyncGenerator, Iterator, Sequence
from datetime import timedelta
from typing import Any

from psycopg import sql

from dispatcher.domain.account import AccountState, StopReason
from dispatcher.domain.campaign import BY_CONFIG, Campaign, CampaignState
from dispatcher.domain.counters import PERMITTED, Measure, StateCounts, read_row_label
from dispatcher.domain.dnc import DncEntry, Scope
from dispatcher.domain.history import AttemptHistory, DestinationHistory, RowHistory
from dispatcher.domain.permitting import REACHED_EARLIER
from dispatcher.domain.report import AttemptKey, ExportFormat, LoadSummary, Progress, Status, Violation
from dispatcher.domain.states import Phase, RetryOwner, State
from dispatcher.store.accounts import account_of
from dispatcher.store.campaigns import campaign_of
from dispatcher.store.database import Database, Row
from dispatcher.store.dnc import entry_of
from dispatcher.store.queries import composed, statements

_LINES_AT_ONCE = 1000
_LOADS_SHOWN = 20
_IN_TIME = {
    "screened_in": timedelta(seconds=5),
    "read_in": timedelta(seconds=60),
    "reaped_in": timedelta(seconds=60),
    "ended_in": timedelta(minutes=5),
}
"""What invariants allow for work that is under way."""
_EXPORTS = {ExportFormat.CSV: "reports.export_csv", ExportFormat.JSONL: "reports.export_jsonl"}
_INSTANT = 'YYYY-MM-DD"T"HH24:MI:SS.US"+00:00"'
_STALE_S = 15
"""The tick measures what moves every five seconds, and leaves a heartbeat every second."""
_IDLE_STALE_S = 75


class Reports:
    """The reporting half of the Store port."""

    db: Database

    async def status(self, campaign: Campaign) -> Status:
        """All figures of a campaign, in one message."""
        mine = {"campaign_id": campaign.id}
        standings, *answers = await self.db.message(
            [
                ("reports.standings", {"ids": [campaign.id]}),
                ("reports.counters", {"ids": [campaign.id], "measures": list(Measure)}),
                ("reports.waits", {**mine, "part": campaign.part}),
                ("accounts.by_id", {"id": campaign.account_id}),
                ("loads.of_campaign", {**mine, "n": _LOADS_SHOWN}),
            ]
        )
        return _status(campaign, standings[0], *answers)

    async def progress(self, campaign_ids: Sequence[int]) -> list[Progress]:
        """How far these campaigns are, in one message."""
        ids = {"ids": list(campaign_ids)}
        campaigns, standings, tallies = await self.db.message(
            [
                ("campaigns.by_ids", ids),
                ("reports.standings", ids),
                ("reports.counters", {**ids, "measures": [Measure.ROW]}),
            ]
        )
        standing = {row["campaign_id"]: row for row in standings}
        return [Progress(**_progress(campaign_of(row), standing[row["id"]], tallies)) for row in campaigns]

    async def history(self, campaign: Campaign, e164: str) -> DestinationHistory | None:
        """Everything about one number of a campaign; None when the campaign never had it. Raises NotFound: purged."""
        campaign.require_rows()
        place = {"part": campaign.part, "campaign_id": campaign.id, "e164": e164, "channel": campaign.policy.channel}
        rows = await self.db.fetch("reports.history_rows", **place)
        if not rows:
            return None
        now = await self.db.fetch_one(
            "reports.history_now", channel=campaign.policy.channel, e164=e164, campaign_id=campaign.id
        )
        account = await self.db.fetch_one("accounts.by_id", id=campaign.account_id)
        assert now
        assert account
        return DestinationHistory(
            campaign=campaign,
            account=account_of(account),
            rows=tuple(
                RowHistory(**{**row, "state": State(row["state"]), "retry_owner": RetryOwner(row["retry_owner"])})
                for row in rows
            ),
            attempts=tuple(
                AttemptHistory(**{**row, "phase": Phase(row["phase"])})
                for row in await self.db.fetch("reports.history_attempts", **place)
            ),
            dnc=tuple(_applies(campaign, await self.db.fetch("dnc.check", number=e164))),
            elsewhere=now["elsewhere"],
            now=now["now"],
        )

    async def export(
        self, campaign: Campaign, format_: ExportFormat, columns: Sequence[str] = ()
    ) -> AsyncGenerator[tuple[int, bytes], None]:
        """Every destination of a campaign in the order it was loaded, from one snapshot: (how many, their lines).

        The server writes them. CSV has no header; `columns` are the variables that have cells of their own. Raises
        NotFound when the campaign was purged.
        """
        campaign.require_rows()
        query = _export(campaign, format_, columns)
        async with self.db.transaction(long=True) as tx:
            async with tx.connection.cursor().copy(query, {"campaign_id": campaign.id}) as copy:
                lines = []
                async for line in copy:
                    lines.append(bytes(line))
                    if len(lines) == _LINES_AT_ONCE:
                        yield len(lines), b"".join(lines)
                        lines.clear()
            yield len(lines), b"".join(lines)

    async def attempt_keys(self, campaign: Campaign) -> list[AttemptKey]:
        """Every attempt of the campaign, open or closed."""
        rows = await self.db.fetch_long("reports.keys_of", part=campaign.part, campaign_id=campaign.id)
        return [AttemptKey(**row) for row in rows]

    async def verify(self) -> list[Violation]:
        """Run every invariant; an empty list is the only good answer."""
        found, asked = [], {"reached": sorted(REACHED_EARLIER), **_IN_TIME}
        for name in statements("verify"):
            found += [Violation(name, row["k"]) for row in await self.db.fetch_long(f"verify.{name}", **asked)]
        return found


def _export(campaign: Campaign, format_: ExportFormat, columns: Sequence[str]) -> sql.Composed:
    names = [sql.Literal(name.replace("%", "%%")) for name in columns]
    cells = [sql.SQL(", nullif(safe_cell(variables ->> {}), '')").format(name) for name in names]
    rows = composed("reports.exported", part=sql.SQL(str(campaign.part)), instant=sql.Literal(_INSTANT))
    return composed(_EXPORTS[format_], exported=rows, extra=sql.Composed(cells))


def _progress(campaign: Campaign, standing: Row, tallies: Sequence[Row]) -> dict[str, Any]:
    rows = _counts_of(tallies, campaign.id, Measure.ROW)
    return {
        "campaign": campaign,
        "state_counts": StateCounts({read_row_label(label): n for label, n in rows.items()}),
        "blocked_by": _blocked_by(standing, campaign) or (None if rows else _nothing_loaded(campaign)),
        "rate": standing["rate"] if _is_fresh(standing) and campaign.state is CampaignState.RUNNING else None,
        "account_name": standing["account_name"],
    }


def _status(
    campaign: Campaign, standing: Row, tallies: list[Row], waits: list[Row], accounts: list[Row], loads: list[Row]
) -> Status:
    account = account_of(accounts[0])
    return Status(
        **_progress(campaign, standing, tallies),
        **waits[0],
        loads=tuple(LoadSummary(**load) for load in loads),
        permits=_counts_of(tallies, campaign.id, Measure.ATTEMPT).get(PERMITTED, 0),
        redials=_counts_of(tallies, campaign.id, Measure.REDIAL),
        requeues=_counts_of(tallies, campaign.id, Measure.REQUEUE),
        next_due_at=standing["next_due_at"],
        limit=min(account.rate, campaign.policy.cps * account.headroom),
        account_state=account.state,
    )


def _counts_of(tallies: Sequence[Row], campaign_id: int, measure: Measure) -> dict[str, int]:
    mine = [row for row in tallies if (row["campaign_id"], row["measure"]) == (campaign_id, measure)]
    return {row["label"]: row["n"] for row in mine}


def _applies(campaign: Campaign, rows: list[Row]) -> Iterator[DncEntry]:
    holders = {Scope.GLOBAL: None, Scope.ACCOUNT: campaign.account_id, Scope.CAMPAIGN: campaign.id}
    for row in rows:
        entry = entry_of(row)
        if entry.scope_id == holders[entry.scope] and entry.channel in ("all", campaign.policy.channel):
            yield entry


def _is_fresh(row: Row) -> bool:
    age: float | None = row["pace_age_s"]
    return age is not None and age < (_STALE_S if row["rate"] else _IDLE_STALE_S)


def _nothing_loaded(campaign: Campaign) -> str | None:
    return "NO_RECORDS: nothing is loaded yet" if campaign.state is CampaignState.RUNNING else None


def _blocked_by(row: Row, campaign: Campaign) -> str | None:
    if campaign.state in (CampaignState.DONE, CampaignState.ABORTED):
        return None
    if (campaign.reason or "").startswith(BY_CONFIG):
        mend = f"mend the account, then: dispatcher campaign resume {campaign.id}; or abort it and create it anew"
        return f"REFUSED by the provider, {campaign.reason}; {mend}"
    if campaign.state is CampaignState.RUNNING and row["running_s"] > _STALE_S and row["tick_age_s"] > _STALE_S:
        return "NOTHING_RUNS (no tick of beat and worker-io for a while); start them: dispatcher up, or supervisord"
    if row["account_state"] == AccountState.STOPPED and row["account_reason"] == StopReason.OPERATOR:
        return f"ACCOUNT_STOPPED by an operator; go on with: dispatcher account resume {row['account_name']}"
    if row["account_state"] == AccountState.STOPPED:
        return f"ACCOUNT_STOPPED ({row['account_reason']}); it is probed and goes on by itself once that is mended"
    if row["is_throttled"]:
        return f"THROTTLED by the provider until {row['throttled_until']:%H:%M:%S %Z}"
    blocked: str | None = row["blocked_by"]
    return blocked
