"""Figures for people, and the invariants."""

from dispatcher.domain.account import AccountState
from dispatcher.domain.campaign import Campaign
from dispatcher.domain.destination import Tally
from dispatcher.domain.report import AttemptKey, Status, Violation
from dispatcher.domain.results import Result
from dispatcher.domain.states import State
from dispatcher.store.database import Database, Row
from dispatcher.store.queries import statements


class Reports:
    """The reporting half of the Store port."""

    db: Database

    async def status(self, campaign: Campaign) -> Status:
        """Progress of a campaign, from its counters."""
        rows = await self._measure(campaign.id, "row")
        attempts = await self._measure(campaign.id, "attempt")
        blocked = await self.db.fetch_one("reports.blocked", campaign_id=campaign.id)
        return Status(
            campaign=campaign,
            tally=Tally({_read_label(label): n for label, n in rows.items()}),
            permits=attempts.get("permitted", 0),
            redials=await self._measure(campaign.id, "redial"),
            put_backs=await self._measure(campaign.id, "putback"),
            next_due_at=blocked["next_due_at"] if blocked else None,
            blocked_by=_blocked_by(blocked),
        )

    async def _measure(self, campaign_id: int, measure: str) -> dict[str, int]:
        rows = await self.db.fetch("reports.tally", campaign_id=campaign_id, measure=measure)
        return {row["label"]: row["n"] for row in rows}

    async def attempt_keys(self, campaign: Campaign) -> list[AttemptKey]:
        """Every attempt of the campaign, open or closed."""
        rows = await self.db.fetch("reports.keys_of", part=campaign.part, campaign_id=campaign.id)
        return [AttemptKey(**row) for row in rows]

    async def verify(self) -> list[Violation]:
        """Run every invariant; an empty list is the only good answer."""
        found = []
        for name in statements("verify"):
            found += [Violation(name, row["k"]) for row in await self.db.fetch(f"verify.{name}")]
        return found


def _read_label(label: str) -> tuple[State, Result | None]:
    state, _, result = label.partition(" ")
    return State(state), Result(result) if result else None


def _blocked_by(row: Row | None) -> str | None:
    if row is None:
        return None
    if row["account_state"] == AccountState.STOPPED:
        return f"ACCOUNT_STOPPED ({row['account_reason']}); it is probed and goes on by itself"
    if row["is_throttled"]:
        return f"THROTTLED by the provider until {row['throttled_until']:%H:%M:%S %Z}"
    blocked: str | None = row["blocked_by"]
    return blocked
