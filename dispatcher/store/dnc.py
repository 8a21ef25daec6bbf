"""Do-not-call lists: an addition is in force at the next permit, and says whom it came too late for."""

from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from itertools import chain, islice
from typing import Any

from psycopg import sql

from dispatcher.domain.audit import AuditActor
from dispatcher.domain.campaign import Campaign
from dispatcher.domain.dnc import (
    PAGE,
    DncAdd,
    DncEntry,
    DncImport,
    DncList,
    DncListRef,
    DncReport,
    ImportTicket,
    ListedNumbers,
    Page,
    Scope,
    ScreeningCursor,
)
from dispatcher.domain.errors import NotAllowed
from dispatcher.domain.results import Channel
from dispatcher.domain.states import State
from dispatcher.store.database import Database, Row, Step, Transaction
from dispatcher.store.permitting import DNC_LOCK
from dispatcher.store.queries import statement

_PARTS_AT_ONCE = 100
_PAGES_AT_ONCE = 2000
_TIDIED_AT_ONCE = 5000
_FEW = 256
"""Most offsets of a page that are stored one by one; more are stored as a bit for each number of the page."""
_NULL = "\\N"
_ANY: dict[str, Any] = {"numbers": None, "prefixes": None}
_ANY_CHANGED: list[Step] = [("dnc.changed", {**_ANY, "listed": True}), ("dnc.changed", {**_ANY, "listed": False})]
"""An import came into force, and others may have ended with it."""
_FIRST = datetime(1, 1, 1, tzinfo=UTC)


class Dnc:
    """The do-not-call half of the Store port."""

    db: Database

    async def dnc_add(
        self, new: DncAdd, over: Sequence[str] = (), *, actor: AuditActor = AuditActor.OPERATOR
    ) -> DncReport:
        """Put numbers on a list, in force at the next permit; then move waiting destinations to DNC.

        `over`: calls that need not be stopped. The lists' lock is held for the short write only.
        """
        named = _named(new.numbers)
        numbers = named["numbers"]
        ref = {"channel": new.channel, "scope": new.scope, "scope_id": new.scope_id}
        audit = {**_ref(new), "source": new.source, "numbers": numbers, "actor": actor}
        _, _, added, out, *_ = await self.db.message(
            [
                ("dnc.lock", {"lock": DNC_LOCK}),
                ("dnc.end_expired", {"numbers": numbers}),
                ("dnc.add", {**named, **_ref(new), "source": new.source, "expires_at": new.expires_at}),
                ("dnc.still_out", {**named, **ref}),
                ("cancelling.cancel_listed", {**named, **ref, "over": list(over)}),
                ("dnc.audit_added", audit),
                ("dnc.changed", {**named, "listed": True}),
            ]
        )
        return DncReport(len(added), await self._screen(numbers), tuple(row["key"] for row in out))

    async def _screen(self, numbers: Sequence[str]) -> int:
        """Move waiting rows with these numbers to DNC, a part at a time; how many."""
        if not numbers:
            return 0
        asked = {"numbers": list(numbers), "channels": list(Channel)}
        look: list[Step] = [
            ("dnc.waits", {**asked, "part": row["part"], "campaigns": row["ids"]})
            for row in await self.db.fetch("campaigns.waiting")
        ]
        screen: list[Step] = [("dnc.screen", {**asked, "part": row["part"]}) for row in await self._in_lots(look)]
        return sum(row["n"] for row in await self._in_lots(screen))

    async def _in_lots(self, steps: Sequence[Step]) -> list[Row]:
        """Rows of all, in messages of so many parts that nobody waits long for their locks."""
        rows: list[Row] = []
        for i in range(0, len(steps), _PARTS_AT_ONCE):
            rows += chain.from_iterable(await self.db.message(steps[i : i + _PARTS_AT_ONCE]))
        return rows

    async def dnc_rescreen(self, since: int) -> bool:
        """Move rows whose number was listed since the lists had that version; True when any number may have been."""
        numbers = [row["number"] for row in await self.db.fetch("dnc.listed_since", version=since)]
        await self._screen([number for number in numbers if number])
        return None in numbers

    async def dnc_remove(
        self, numbers: Sequence[str], ref: DncListRef, *, actor: AuditActor = AuditActor.OPERATOR
    ) -> int:
        """End the entries of a list for these numbers; how many there were. Nothing is deleted."""

        _, ended, *_ = await self.db.message(
            [
                ("dnc.lock", {"lock": DNC_LOCK}),
                ("dnc.remove", {**_named(numbers), **_ref(ref)}),
                ("dnc.changed", {**_named(numbers), "listed": False}),
                ("dnc.audit_removed", {"list": ref.list, "numbers": _named(numbers)["numbers"], "actor": actor}),
            ]
        )
        return len(ended)

    async def dnc_check(self, number: str) -> list[DncEntry]:
        """Every entry that applies to the number now, prefixes included."""
        return [entry_of(row) for row in await self.db.fetch("dnc.check", number=number)]

    async def dnc_lists(self) -> list[DncList]:
        """The lists that are in force; each import is one."""
        return [DncList(**{**row, "scope": Scope(row["scope"])}) for row in await self.db.fetch_long("dnc.lists")]

    async def dnc_entries(self, list_name: str) -> AsyncIterator[DncEntry]:
        """What a list holds now, streamed."""
        async with self.db.transaction(long=True) as tx, tx.connection.cursor(name="entries") as cursor:
            await cursor.execute(sql.SQL(statement("dnc.entries")), {"list": list_name})
            async for row in cursor:
                yield entry_of(row)

    async def dnc_begin_import(self, new: DncImport, *, owner: str, lease: timedelta) -> ImportTicket:
        """Open an import, or find it in force already. Raises NotAllowed when somebody imports the same file now."""

        async def work(tx: Transaction) -> ImportTicket:
            await tx.fetch("dnc.end_imports")
            known = await tx.fetch_one("dnc.find_import", **_ref(new), identity=new.identity)
            if known and known["is_alive"]:
                raise NotAllowed(f"this file is being imported into '{new.list}' right now; wait for it")
            if known and known["is_whole"]:
                return ImportTicket(known["id"], True, owner)
            if known:
                await tx.fetch("dnc.supersede", id=known["id"])
            made = await tx.fetch_one(
                "dnc.begin_import",
                **_ref(new),
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

        ticket = await self.db.atomically(work)
        if ticket.is_active:
            renew = {"id": ticket.import_id, "replaces": new.replaces, "expires_at": new.expires_at}
            steps: list[Step] = [("dnc.lock", {"lock": DNC_LOCK}), ("dnc.renew_import", renew)]
            if new.replaces:
                steps += [("dnc.end_replaced", {"id": ticket.import_id}), *_ANY_CHANGED]
            _, renewed, *_ = await self.db.message(steps)
            if not renewed:
                raise NotAllowed(f"this file was in force in '{new.list}' and was ended just now; import it again")
        return ticket

    async def dnc_tidy(self) -> int:
        """Take some pages of imports that ended out of the way of permits, and forget unused ones; how many."""
        tidied = [await self.db.fetch(name, n=_TIDIED_AT_ONCE) for name in ("dnc.retire", "dnc.forget_unused")]
        return sum(rows[0]["n"] for rows in tidied)

    async def dnc_keep_import(self, ticket: ImportTicket, *, lease: timedelta) -> None:
        """Say that the importer is alive. Raises NotAllowed when the import was ended."""
        async with self.db.transaction(long=True) as tx:
            await _keep_alive(tx, ticket, lease)

    async def dnc_stage(self, ticket: ImportTicket, listed: ListedNumbers, *, lease: timedelta) -> None:
        """COPY all numbers of an import, which is not in force yet. Raises NotAllowed when the import was ended."""
        async with self.db.transaction(long=True) as tx:
            await _keep_alive(tx, ticket, lease, len(listed))
            await tx.fetch("dnc.add_prefixes", id=ticket.import_id, numbers=sorted(listed.prefixes))
        for pages in _batches(listed.pages()):
            async with self.db.transaction(long=True) as tx:
                await _keep_alive(tx, ticket, lease)
                async with tx.connection.cursor().copy(sql.SQL(statement("dnc.copy_pages"))) as copy:
                    await copy.write("".join(f"{ticket.import_id}\t{_page_line(page)}" for page in pages))
                await tx.fetch("dnc.widen_union", **_columns(pages))
        await self.db.fetch_long("dnc.analyze_pages")

    async def dnc_activate(self, ticket: ImportTicket, *, actor: AuditActor = AuditActor.OPERATOR) -> int:
        """Bring a whole import into force, and end those it replaces; how many numbers. Raises NotAllowed."""

        done = {"id": ticket.import_id}
        _, active, *_ = await self.db.message(
            [
                ("dnc.lock", {"lock": DNC_LOCK}),
                ("dnc.activate", {**done, "owner": ticket.owner}),
                ("dnc.end_replaced", done),
                ("cancelling.cancel_imported", done),
                ("dnc.audit_imported", {**done, "owner": ticket.owner, "actor": actor}),
                *_ANY_CHANGED,
            ]
        )
        if not active:
            raise NotAllowed("the import took too long and was ended; import the file again")
        return int(active[0]["numbers"])

    async def dnc_fail_import(self, ticket: ImportTicket) -> None:
        """Give an import up before it was in force."""
        await self.db.fetch("dnc.fail_import", id=ticket.import_id, owner=ticket.owner)

    async def dnc_screen_waiting(
        self, campaign: Campaign, after: ScreeningCursor | None, n: int
    ) -> tuple[ScreeningCursor | None, int]:
        """Move listed rows among the next `n` waiting ones; gives (the last one looked at, how many were moved)."""
        at = after or ScreeningCursor(State.READY, _FIRST, 0)
        row = await self.db.fetch_one(
            "dnc.screen_waiting",
            part=campaign.part,
            campaign_id=campaign.id,
            account_id=campaign.account_id,
            state=at.state,
            after_due=at.due_at,
            after_id=at.id,
            n=n,
        )
        assert row
        if row["id"] is not None:
            return ScreeningCursor(at.state, row["due_at"], row["id"]), row["moved"]
        if at.state is State.READY:
            return await self.dnc_screen_waiting(campaign, ScreeningCursor(State.CALLBACK, _FIRST, 0), n)
        return None, 0


async def _keep_alive(tx: Transaction, ticket: ImportTicket, lease: timedelta, more: int = 0) -> None:
    alive = await tx.fetch_one("dnc.heartbeat_import", id=ticket.import_id, owner=ticket.owner, lease=lease, n=more)
    if alive is None:
        raise NotAllowed("the import took too long and was ended; import the file again")


def _batches(pages: Iterable[Page]) -> Iterator[list[Page]]:
    rest = iter(pages)
    while batch := list(islice(rest, _PAGES_AT_ONCE)):
        yield batch


def _page_line(page: Page) -> str:
    offsets, bits = _cells(page)
    return f"{page.number}\t{offsets or _NULL}\t{bits or _NULL}\n"


def _columns(pages: Sequence[Page]) -> dict[str, Any]:
    offsets, bits = zip(*map(_cells, pages), strict=True)
    return {"pages": [page.number for page in pages], "offsets": list(offsets), "bits": list(bits)}


def _cells(page: Page) -> tuple[str | None, str | None]:
    """The offsets of few, the bits of many."""
    return (None, _bits(page)) if len(page.offsets) > _FEW else (f"{{{','.join(map(str, page.offsets))}}}", None)


def _bits(page: Page) -> str:
    """A bit string, in the digits that PostgreSQL reads: the first offset is the first bit."""
    bits = bytearray(PAGE // 8)
    for offset in page.offsets:
        bits[offset >> 3] |= 0x80 >> (offset & 7)
    return f"x{bits.hex()}"


def _ref(ref: DncListRef) -> dict[str, Any]:
    return {"list": ref.list, "scope": ref.scope, "scope_id": ref.scope_id, "channel": ref.channel}


def _named(numbers: Sequence[str]) -> dict[str, Any]:
    return {"numbers": [n.rstrip("*") for n in numbers], "prefixes": [n.endswith("*") for n in numbers]}


def entry_of(row: Row) -> DncEntry:
    """An entry as our record."""
    return DncEntry(**{**row, "scope": Scope(row["scope"])})
