"""Do-not-call lists: an addition is in force at the next permit, and says whom it came too late for."""

from collections.abc import Sequence
from datetime import datetime

from dispatcher.domain.dnc import DncAdd, DncEntry, DncReport, Scope
from dispatcher.store.audit import write_audit
from dispatcher.store.database import Database, Transaction
from dispatcher.store.dialling import DNC_LOCK


class Dnc:
    """The do-not-call half of the Store port."""

    db: Database

    async def dnc_add(self, new: DncAdd) -> DncReport:
        """Put numbers on a list and move waiting destinations to DNC, in one short exclusive write."""
        numbers = list(new.numbers)

        async def work(tx: Transaction) -> DncReport:
            await tx.fetch("dnc.lock", lock=DNC_LOCK)
            await tx.fetch("dnc.end_expired", numbers=numbers)
            added = await tx.fetch(
                "dnc.add",
                numbers=numbers,
                scope=new.scope,
                scope_id=new.scope_id,
                channel=new.channel,
                list=new.list,
                source=new.source,
                expires_at=new.expires_at,
            )
            moved = await tx.fetch_one("dnc.screen", numbers=numbers)
            out = await tx.fetch("dnc.still_out", numbers=numbers, channel=new.channel)
            if added:
                detail = {"list": new.list, "source": new.source, "scope": new.scope, "numbers": len(added)}
                await write_audit(tx, "operator", "dnc.added", f"dnc:{new.list}", detail)
            return DncReport(len(added), moved["n"] if moved else 0, tuple(row["key"] for row in out))

        return await self.db.atomically(work)

    async def dnc_add_called(self, keys: Sequence[str], list_name: str, source: str) -> None:
        """Put the numbers of these attempts on a global list: the provider refused them, or the person did."""
        rows = await self.db.fetch("dnc.called", keys=list(keys))
        if rows:
            await self.dnc_add(DncAdd(numbers=tuple(row["e164"] for row in rows), list=list_name, source=source))

    async def dnc_rescreen(self, since: datetime) -> int:
        """Move rows that were loaded while their number was being listed; how many."""
        numbers = [row["number"] for row in await self.db.fetch("dnc.added_since", since=since)]
        if not numbers:
            return 0

        async def work(tx: Transaction) -> int:
            await tx.fetch("dnc.lock", lock=DNC_LOCK)
            moved = await tx.fetch_one("dnc.screen", numbers=numbers)
            return int(moved["n"]) if moved else 0

        return await self.db.atomically(work)

    async def dnc_remove(self, numbers: Sequence[str], list_name: str) -> int:
        """End the entries of a list for these numbers; how many there were. Nothing is deleted."""

        async def work(tx: Transaction) -> int:
            await tx.fetch("dnc.lock", lock=DNC_LOCK)
            ended = await tx.fetch("dnc.remove", numbers=list(numbers), list=list_name)
            if ended:
                await write_audit(tx, "operator", "dnc.removed", f"dnc:{list_name}", {"numbers": len(ended)})
            return len(ended)

        return await self.db.atomically(work)

    async def dnc_check(self, number: str) -> list[DncEntry]:
        """Every entry that applies to the number now, prefixes included."""
        return [
            DncEntry(**{**row, "scope": Scope(row["scope"])}) for row in await self.db.fetch("dnc.check", number=number)
        ]
