"""Do-not-call lists: an addition is in force at the next permit, and says whom it came too late for."""

from collections.abc import AsyncIterator, Sequence
from datetime import datetime, timedelta
from typing import Any

from psycopg import sql

from dispatcher.domain.campaign import Campaign
from dispatcher.domain.dnc import DncAdd, DncEntry, DncImport, DncList, DncPlace, DncReport, ImportTicket, Scope
from dispatcher.domain.errors import NotAllowed
from dispatcher.store.audit import write_audit
from dispatcher.store.database import Database, Row, Transaction
from dispatcher.store.dialling import DNC_LOCK
from dispatcher.store.queries import statement


class Dnc:
    """The do-not-call half of the Store port."""

    db: Database

    async def dnc_add(self, new: DncAdd) -> DncReport:
        """Put numbers on a list and move waiting destinations to DNC, in one short exclusive write."""
        return await self._add(new)

    async def _add(self, new: DncAdd, over: Sequence[str] = ()) -> DncReport:
        """`over`: calls that nobody needs to stop."""
        named = _named(new.numbers)
        numbers = named["numbers"]

        async def work(tx: Transaction) -> DncReport:
            await tx.fetch("dnc.lock", lock=DNC_LOCK)
            await tx.fetch("dnc.end_expired", numbers=numbers)
            added = await tx.fetch(
                "dnc.add",
                **named,
                **_place(new),
                source=new.source,
                expires_at=new.expires_at,
            )
            moved = await tx.fetch_one("dnc.screen", numbers=numbers)
            out = await tx.fetch("dnc.still_out", **named, channel=new.channel, scope=new.scope, scope_id=new.scope_id)
            await tx.fetch("cancelling.cancel_calls", keys=[row["key"] for row in out if row["key"] not in over])
            if added:
                detail = {"list": new.list, "source": new.source, "scope": new.scope, "numbers": len(added)}
                await write_audit(tx, "operator", "dnc.added", f"dnc:{new.list}", detail)
            return DncReport(len(added), moved["n"] if moved else 0, tuple(row["key"] for row in out))

        return await self.db.atomically(work)

    async def dnc_add_called(self, keys: Sequence[str], list_name: str, source: str) -> None:
        """Put the numbers of these attempts on a global list: the provider refused them, or the person did."""
        rows = await self.db.fetch("dnc.called", keys=list(keys))
        if rows:
            new = DncAdd(numbers=tuple(row["e164"] for row in rows), list=list_name, source=source)
            await self._add(new, over=keys)

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

    async def dnc_grew_since(self, since: datetime) -> bool:
        """Did a prefix or an import come into force, whose numbers cannot be told one by one?"""
        row = await self.db.fetch_one("dnc.grew_since", since=since)
        return bool(row and row["grew"])

    async def dnc_remove(self, numbers: Sequence[str], place: DncPlace) -> int:
        """End the entries of a list for these numbers; how many there were. Nothing is deleted."""

        async def work(tx: Transaction) -> int:
            await tx.fetch("dnc.lock", lock=DNC_LOCK)
            ended = await tx.fetch("dnc.remove", **_named(numbers), **_place(place))
            if ended:
                await write_audit(tx, "operator", "dnc.removed", f"dnc:{place.list}", {"numbers": len(ended)})
            return len(ended)

        return await self.db.atomically(work)

    async def dnc_check(self, number: str) -> list[DncEntry]:
        """Every entry that applies to the number now, prefixes included."""
        return [entry_of(row) for row in await self.db.fetch("dnc.check", number=number)]

    async def dnc_lists(self) -> list[DncList]:
        """The lists that are in force; each import is one."""
        return [DncList(**{**row, "scope": Scope(row["scope"])}) for row in await self.db.fetch("dnc.lists")]

    async def dnc_entries(self, list_name: str) -> AsyncIterator[DncEntry]:
        """What a list holds now, streamed."""
        async with self.db.transaction() as tx, tx.connection.cursor(name="entries") as cursor:
            await cursor.execute(sql.SQL(statement("dnc.entries")), {"list": list_name})
            async for row in cursor:
                yield entry_of(row)

    async def dnc_begin_import(self, new: DncImport, *, owner: str, lease: timedelta) -> ImportTicket:
        """Open an import, or find it in force already. Raises NotAllowed when somebody imports the same file now."""

        async def work(tx: Transaction) -> ImportTicket:
            await tx.fetch("dnc.end_imports")
            await tx.fetch("dnc.forget_unused")
            known = await tx.fetch_one("dnc.find_import", **_place(new), identity=new.identity)
            if known and known["is_alive"]:
                raise NotAllowed(f"this file is being imported into '{new.list}' right now; wait for it")
            if known and known["is_whole"]:
                await tx.fetch("dnc.lock", lock=DNC_LOCK)
                await tx.fetch("dnc.renew_import", id=known["id"], replaces=new.replaces, expires_at=new.expires_at)
                if new.replaces:
                    await tx.fetch("dnc.end_replaced", id=known["id"])
                return ImportTicket(known["id"], True, owner)
            if known:
                await tx.fetch("dnc.supersede", id=known["id"])
            made = await tx.fetch_one(
                "dnc.begin_import",
                **_place(new),
                source=new.source,
                identity=new.identity,
                owner=owner,
                lease=lease,
                replaces=new.replaces,
                expires_at=new.expires_at,
            )
            if made is None:
                raise NotAllowed(f"this file is being imported into '{new.list}' right now; wait for it")
            return ImportTicket(made["id"], False, owner)

        return await self.db.atomically(work)

    async def dnc_stage(self, ticket: ImportTicket, numbers: Sequence[str], *, lease: timedelta) -> None:
        """COPY a chunk that is not in force yet, and stay alive. Raises NotAllowed when the import was ended."""
        async with self.db.transaction() as tx:
            alive = await tx.fetch_one(
                "dnc.heartbeat_import", id=ticket.import_id, owner=ticket.owner, lease=lease, n=len(numbers)
            )
            if alive is None:
                raise NotAllowed("the import took too long and was ended; import the file again")
            cursor = tx.connection.cursor()
            async with cursor.copy(sql.SQL(statement("dnc.copy_import"))) as copy:
                for number in numbers:
                    await copy.write_row((ticket.import_id, number.rstrip("*"), number.endswith("*")))

    async def dnc_activate(self, ticket: ImportTicket) -> int:
        """Bring a whole import into force, and end those it replaces; how many numbers. Raises NotAllowed."""

        async def work(tx: Transaction) -> int:
            await tx.fetch("dnc.lock", lock=DNC_LOCK)
            active = await tx.fetch_one("dnc.activate", id=ticket.import_id, owner=ticket.owner)
            if active is None:
                raise NotAllowed("the import took too long and was ended; import the file again")
            await tx.fetch("dnc.end_replaced", id=ticket.import_id)
            await tx.fetch("cancelling.cancel_imported", id=ticket.import_id)
            detail = {"numbers": active["numbers"]}
            await write_audit(tx, "operator", "dnc.imported", f"dnc-import:{ticket.import_id}", detail)
            return int(active["numbers"])

        return await self.db.atomically(work)

    async def dnc_fail_import(self, ticket: ImportTicket) -> None:
        """Give an import up before it was in force."""
        await self.db.fetch("dnc.fail_import", id=ticket.import_id, owner=ticket.owner)

    async def dnc_screen_waiting(self, campaign: Campaign, after: int, n: int) -> tuple[int | None, int]:
        """Move listed rows among the next `n` waiting ones; gives (the last id looked at, how many were moved)."""
        row = await self.db.fetch_one(
            "dnc.screen_waiting",
            part=campaign.part,
            campaign_id=campaign.id,
            account_id=campaign.account_id,
            after=after,
            n=n,
        )
        assert row
        return row["last"], row["moved"]


def _place(place: DncPlace) -> dict[str, Any]:
    return {"list": place.list, "scope": place.scope, "scope_id": place.scope_id, "channel": place.channel}


def _named(numbers: Sequence[str]) -> dict[str, Any]:
    return {"numbers": [n.rstrip("*") for n in numbers], "prefixes": [n.endswith("*") for n in numbers]}


def entry_of(row: Row) -> DncEntry:
    """A row of `dnc_active` as our record."""
    return DncEntry(**{**row, "scope": Scope(row["scope"])})
