"""Calls that have waited too long."""

from dispatcher.domain.attempt import LOOKUP_LEASE, OpenCall
from dispatcher.domain.results import AttemptUpdate, Channel, Disposition, Outcome, UpdateSource
from dispatcher.domain.states import Phase
from dispatcher.store.database import Database, Row


class Lookups:
    """The part of the Store port that is about asking the provider."""

    db: Database

    async def take_lookups(self, account_id: int, n: int) -> list[OpenCall]:
        """Attempts without a result that it is time to ask about, the longest due first; taken for half a minute."""
        rows = await self.db.fetch("lookups.take", account_id=account_id, n=n, again_after=LOOKUP_LEASE)
        return [_open_call(row) for row in sorted(rows, key=lambda row: row["due_at"])]

    async def long_overdue(self, account_id: int, n: int) -> list[AttemptUpdate]:
        """News of calls that have waited so long that they end although the provider could not be asked."""
        over = Outcome(disposition=Disposition.OVERDUE)
        rows = await self.db.fetch("lookups.take_long_overdue", account_id=account_id, n=n)
        return [AttemptUpdate(row["key"], over, UpdateSource.RESOLVER) for row in rows]


def _open_call(row: Row) -> OpenCall:
    return OpenCall(
        key=row["key"],
        to=row["to"],
        channel=Channel(row["channel"]),
        phase=Phase(row["phase"]),
        permit_at=row["permit_at"],
        provider_call_id=row["provider_call_id"],
        provider_request_id=row["provider_request_id"],
        provider_owned=row["provider_owned"],
        flow=row["flow"],
        result_deadline=row["result_deadline"],
        as_of=row["now"],
    )
