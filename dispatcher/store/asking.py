"""Calls that have waited too long."""

from dispatcher.domain.attempt import OpenCall
from dispatcher.domain.results import Channel, Disposition, News, Outcome, Source
from dispatcher.domain.states import Phase
from dispatcher.store.database import Database, Row


class Asking:
    """The part of the Store port that is about asking the provider."""

    db: Database

    async def take_lookups(self, account_id: int, n: int) -> list[OpenCall]:
        """Attempts without a result that it is time to ask about, the longest due first; taken for half a minute."""
        rows = await self.db.fetch("asking.take_lookups", account_id=account_id, n=n)
        return [_open_call(row) for row in sorted(rows, key=lambda row: row["due_at"])]

    async def hopeless(self, account_id: int, n: int) -> list[News]:
        """News of calls that have waited so long that they end although the provider could not be asked."""
        over = Outcome(disposition=Disposition.OVERDUE)
        rows = await self.db.fetch("asking.take_hopeless", account_id=account_id, n=n)
        return [News(row["key"], over, Source.RESOLVER) for row in rows]


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
        resolve_by=row["resolve_by"],
        as_of=row["now"],
    )
