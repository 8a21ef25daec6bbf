"""Loads: each fills a table of its own, whose rows are kept permanently."""

import hashlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from datetime import timedelta
from typing import Any

from psycopg import sql

from dispatcher.domain.campaign import Campaign, CampaignState
from dispatcher.domain.errors import NotAllowed, NotFound, ServerError
from dispatcher.domain.loading import Deduplicated, LoadReport, LoadState, LoadTicket, Reject
from dispatcher.domain.states import State
from dispatcher.store.database import Database, Row, Transaction
from dispatcher.store.load_table import LoadTable, attach, copy, make_indexes
from dispatcher.store.queries import composed

_LOAD_LOCKS = 7_261_002
"""First half of the advisory lock that lets one loader at a time finish in a campaign."""

OWN_PART_FROM = 100_000
"""A campaign whose first load has more records gets partitions of its own."""
LONGEST_LOAD = timedelta(days=7)
"""Changes of lists are kept so long, because a load screens again what changed since it began."""
_TAKEN_OVER = "another loader took this load over; wait for it, or load the file again"


class Loads:
    """The loading half of the Store port."""

    db: Database

    async def begin_load(
        self, campaign: Campaign, identity: str, source: str, *, owner: str, lease: timedelta
    ) -> LoadTicket:
        """Open a load, or find it done already. Raises NotAllowed.

        A load is known by what it holds: the same file with the same mapping is the same load for ever.
        """

        async def work(tx: Transaction) -> LoadTicket:
            locked = await tx.fetch_one("campaigns.lock", id=campaign.id)
            assert locked
            _require_open(replace(campaign, state=CampaignState(locked["state"])))
            known = await tx.fetch_one("loads.find", campaign_id=campaign.id, identity=identity)
            if known and known["state"] == LoadState.DONE:
                return LoadTicket(known["id"], campaign, True, owner, lists_version=known["lists_version"])
            if known and (known["alive_s"] or not await tx.fetch_one("loads.take", id=known["id"])):
                raise NotAllowed(
                    f"this file is being loaded into campaign {campaign.id} right now; wait for it. If its loader was "
                    f"killed, load it again in {known['alive_s'] or 0:.0f} s"
                )
            made = await tx.fetch_one(
                "loads.begin", campaign_id=campaign.id, identity=identity, source=source, owner=owner, lease=lease
            )
            assert made
            ticket = LoadTicket(made["id"], campaign, False, owner, made["part"], made["lists_version"])
            if known and known["part"]:
                await _drop(tx, known["part"])
            await tx.fetch("dnc.forget_changes", older=LONGEST_LOAD)
            await LoadTable.of(ticket).run(tx, "loads.create_table")
            return ticket

        return await self.db.atomically(work)

    async def stage(self, ticket: LoadTicket, block: Deduplicated, *, lease: timedelta) -> None:
        """COPY a block of records into the load's table, and stay alive. Raises NotAllowed when another took over."""
        async with self.db.transaction(long=True) as tx:
            alive = await tx.fetch_one(
                "loads.heartbeat", id=ticket.load_id, owner=ticket.owner, lease=lease, n=len(block)
            )
            if alive is None:
                raise NotAllowed(_TAKEN_OVER)
            await copy(tx, LoadTable.of(ticket), block, str(alive["now"]))

    async def finish_load(self, ticket: LoadTicket, *, lease: timedelta) -> LoadReport:
        """Keep all that was staged, or nothing of it. INVALID goes before DUP, DUP before DNC; the rest is READY.

        A campaign whose first load is large gets a partition of its own, fixed for life. Raises NotAllowed.
        """
        table = LoadTable.of(ticket)
        async with self._mine(ticket, lease) as (tx, rows):
            await table.run(tx, "loads.keep_duplicates")
            is_large = rows > OWN_PART_FROM and not (await _home(tx, ticket.campaign))["has_rows"]
        if is_large:
            async with self._mine(ticket, lease) as (tx, rows):
                await make_indexes(self.db, tx, table)

        async def work(tx: Transaction) -> LoadReport:
            rows = await _lock_mine(tx, ticket)
            await tx.fetch("loads.lock_campaign", space=_LOAD_LOCKS, campaign_id=ticket.campaign.id)
            made = await _keep(tx, table, ticket, is_large=is_large)
            if sum(made.values()) != rows:
                raise ServerError(
                    f"load {ticket.load_id}: {rows} records were read but {sum(made.values())} rows made; "
                    "nothing was kept. Load the file again."
                )
            place = {"campaign_id": ticket.campaign.id}
            await tx.fetch("loads.count_rows", **place, states=list(made), counts=list(made.values()))
            done = {"id": ticket.load_id, "owner": ticket.owner, "lists_version": ticket.lists_version}
            await tx.fetch("loads.finish", **done, rows_read=rows)
            await tx.fetch("campaigns.notice", campaigns=[ticket.campaign.id])
            return LoadReport(ticket.load_id, False, made)

        return await self.db.atomically(work, long=True)

    async def load_screened(self, ticket: LoadTicket) -> None:
        """Nothing is left to do for a load that is done."""
        await self.db.fetch("loads.screened", id=ticket.load_id)

    @asynccontextmanager
    async def _mine(self, ticket: LoadTicket, lease: timedelta) -> AsyncIterator[tuple[Transaction, int]]:
        """A transaction in which nobody takes the load for dead, however long it takes; and how many rows it has."""
        async with self.db.transaction(long=True) as tx:
            yield tx, await _lock_mine(tx, ticket)
            await tx.fetch("loads.heartbeat", id=ticket.load_id, owner=ticket.owner, lease=lease, n=0)

    async def dry_run_load(
        self,
        campaign: Campaign,
        identity: str,
        blocks: AsyncIterator[Deduplicated],
        rejected: Callable[[Reject], None],
    ) -> LoadReport:
        """What a load would report, and its rejects: made in temporary tables and rolled back. Raises NotAllowed."""
        _require_open(campaign)
        known = await self.db.fetch_one("loads.find", campaign_id=campaign.id, identity=identity)
        if known and known["state"] == LoadState.DONE:
            ticket = LoadTicket(known["id"], campaign, True, "")
            async for reject in self.rejects(ticket):
                rejected(reject)
            return await self.load_report(ticket)
        table = LoadTable(0, 0, campaign, "rehearsal", "rehearsal_duplicates")
        made: Mapping[State, int] = {}
        with suppress(_DryRunDone):
            async with self.db.transaction(long=True) as tx:
                await table.run(tx, "loads.create_dry_run")
                async for block in blocks:
                    now = await tx.fetch_one("reports.now")
                    assert now
                    await copy(tx, table, block, str(now["now"]))
                await table.run(tx, "loads.keep_duplicates")
                home = await _home(tx, campaign)
                made = await _put_into(tx, table, home["part"], "rehearsed")
                async for reject in _rejects(tx, table.scope | {"part": home["part"], "load_id": 0}, "rehearsed"):
                    rejected(reject)
                raise _DryRunDone
        return LoadReport(0, False, made)

    async def find_load(self, campaign: Campaign, load_id: int) -> LoadTicket:
        """A load that is done, and whose records are still there. Raises NotFound."""
        campaign.require_rows()
        row = await self.db.fetch_one("loads.by_id", id=load_id, campaign_id=campaign.id)
        if row is None or row["state"] != LoadState.DONE:
            raise NotFound(f"campaign {campaign.id} has no load {load_id} that is done; see its status")
        return LoadTicket(load_id, campaign, True, row["owner"])

    async def note_failed_load(self, campaign_id: int, source: str, error: str) -> None:
        """Keep why a load that nobody waits for could not begin."""
        identity = f"failed {hashlib.sha256(source.encode()).hexdigest()}"
        await self.db.fetch("loads.note_failed", campaign_id=campaign_id, identity=identity, source=source, error=error)

    async def load_report(self, ticket: LoadTicket) -> LoadReport:
        """What the load made of its records."""
        place = await self._place(ticket)
        async with self.db.transaction(long=True) as tx:
            return LoadReport(ticket.load_id, ticket.is_done, await _report(tx, place))

    async def rejects(self, ticket: LoadTicket) -> AsyncGenerator[Reject, None]:
        """The records of the load that are not to be dialled, in the order of the file, streamed."""
        place = await self._place(ticket)
        async with self.db.transaction(long=True) as tx:
            async for reject in _rejects(tx, place):
                yield reject

    async def _place(self, ticket: LoadTicket) -> dict[str, int]:
        (row,) = await self.db.fetch("campaigns.part_of", id=ticket.campaign.id)
        return {"part": row["part"], "campaign_id": ticket.campaign.id, "load_id": ticket.load_id}

    async def fail_load(self, ticket: LoadTicket, error: str) -> None:
        """Give a load up: its table is dropped, the file may be loaded again."""

        async def work(tx: Transaction) -> None:
            for row in await tx.fetch("loads.fail", id=ticket.load_id, owner=ticket.owner, error=error):
                await _drop(tx, row["part"])
                await tx.fetch("campaigns.notice", campaigns=[ticket.campaign.id])

        await self.db.atomically(work)

    async def fail_dead_loads(self) -> int:
        """Give up loads whose loader died; how many there were."""

        async def work(tx: Transaction) -> int:
            dead = await tx.fetch("loads.fail_dead")
            for row in dead:
                await _drop(tx, row["part"])
            await tx.fetch("campaigns.notice", campaigns=[row["campaign_id"] for row in dead])
            return len(dead)

        return await self.db.atomically(work)


def _require_open(campaign: Campaign) -> None:
    if campaign.state in (CampaignState.DONE, CampaignState.ABORTED):
        raise NotAllowed(f"campaign {campaign.id} is {campaign.state}; make a new campaign to load more")


class _DryRunDone(Exception):
    """Rolls a rehearsal back."""


async def _home(tx: Transaction, campaign: Campaign) -> Row:
    """Where the campaign's rows are, and whether it has any. Asked anew: its first load may just have moved it."""
    row = await tx.fetch_one("loads.has_rows", campaign_id=campaign.id)
    assert row
    return row


async def _lock_mine(tx: Transaction, ticket: LoadTicket) -> int:
    """While this is held nobody takes the load for dead; how many rows it has. Raises NotAllowed."""
    mine = await tx.fetch_one("loads.lock_mine", id=ticket.load_id, owner=ticket.owner)
    if mine is None:
        raise NotAllowed(_TAKEN_OVER)
    return int(mine["rows_read"])


async def _keep(tx: Transaction, table: LoadTable, ticket: LoadTicket, *, is_large: bool) -> Mapping[State, int]:
    """The load's table becomes the campaign's partition, or its rows go where the campaign's are; rows by state."""
    home = await _home(tx, ticket.campaign)
    await _judge_listed(tx, table, ticket)
    if not is_large or home["has_rows"]:
        made = await _put_into(tx, table, home["part"])
        await _drop(tx, table.part)
        return made
    await table.run(tx, "loads.tidy")
    await table.run(tx, "loads.make_attempts")
    made = _by_state(await table.run(tx, "loads.states"))
    await attach(tx, table)
    # last: a start or a pause waits for this row while it holds the account's lock
    await tx.fetch("loads.move_to_part", campaign_id=ticket.campaign.id, part=table.part)
    return made


async def _judge_listed(tx: Transaction, table: LoadTable, ticket: LoadTicket) -> None:
    """A list that gave a number up while the file was read leaves no DNC. Who was listed is found after the commit."""
    ended = await tx.fetch("loads.ended_since", id=ticket.load_id, lists_version=ticket.lists_version)
    numbers = [row["number"] for row in ended]
    if numbers:
        some = None if None in numbers else numbers
        await table.run(tx, "loads.judge_listed", numbers=some, **table.scope)


async def _put_into(tx: Transaction, table: LoadTable, part: int, kept: str = "") -> Mapping[State, int]:
    """The rows, judged by what earlier loads brought, go into the campaign's part, or into the table `kept`."""
    earlier = f"destination_{part}"
    names = {"part_table": kept or earlier, "earlier": earlier}
    return _by_state(await table.run(tx, "loads.put_into_part", names, part=part, **table.scope))


async def _drop(tx: Transaction, part: int) -> None:
    """Drop the tables of a load that are not attached."""
    await tx.fetch("loads.drop_tables", part=part)


def _by_state(rows: list[Row]) -> dict[State, int]:
    return {State(row["state"]): row["n"] for row in rows}


async def _report(tx: Transaction, place: Mapping[str, Any]) -> dict[State, int]:
    return _by_state(await tx.fetch("loads.report", **place))


async def _rejects(
    tx: Transaction, place: Mapping[str, Any], target: str = "destination"
) -> AsyncGenerator[Reject, None]:
    async with tx.connection.cursor(name="rejects") as cursor:
        await cursor.execute(composed("loads.rejects", target=sql.Identifier(target)), place)
        async for row in cursor:
            yield Reject(row["line"], row["raw"], row["e164"], State(row["state"]), row["reason"])
