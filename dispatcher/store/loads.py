"""Loads: staged by COPY, classified in one statement, kept for ever."""

import hashlib
import re
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from typing import Any

from psycopg import sql
from psycopg.types.json import Jsonb

from dispatcher.domain.campaign import Campaign, CampaignState
from dispatcher.domain.errors import NotAllowed, NotFound, ServerError
from dispatcher.domain.loading import LoadReport, LoadTicket, Reject
from dispatcher.domain.screening import Screened
from dispatcher.domain.states import State
from dispatcher.store.database import Database, Row, Transaction
from dispatcher.store.queries import statement

_LOAD_LOCKS = 7_261_002
"""First half of the advisory lock that lets one loader at a time classify into a campaign."""

OWN_PART_FROM = 100_000
"""A campaign whose first load has more records gets partitions of its own."""
_REHEARSAL, _REHEARSED = 0, "rehearsed"
"""No load has this id, no table this name."""
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
            if known and known["state"] == "DONE":
                return LoadTicket(known["id"], campaign, True, owner, known["created_at"])
            if known and (known["alive_s"] or not await tx.fetch_one("loads.take", id=known["id"])):
                raise NotAllowed(
                    f"this file is being loaded into campaign {campaign.id} right now; wait for it. If its loader was "
                    f"killed, load it again in {known['alive_s'] or 0:.0f} s"
                )
            made = await tx.fetch_one(
                "loads.begin", campaign_id=campaign.id, identity=identity, source=source, owner=owner, lease=lease
            )
            assert made
            for name in ("loads.drop_staging", "loads.create_staging"):
                await _execute(tx, name, made["id"])
            return LoadTicket(made["id"], campaign, False, owner, made["opened_at"])

        return await self.db.atomically(work)

    async def stage(self, ticket: LoadTicket, rows: Iterable[Screened], *, lease: timedelta) -> None:
        """COPY a chunk of records beside the table, and stay alive. Raises NotAllowed when another took over."""
        async with self.db.transaction(long=True) as tx:
            alive = await tx.fetch_one("loads.heartbeat", id=ticket.load_id, owner=ticket.owner, lease=lease)
            if alive is None:
                raise NotAllowed(_TAKEN_OVER)
            await _copy(tx, ticket.load_id, rows)

    async def finish_load(self, ticket: LoadTicket) -> LoadReport:
        """Classify what was staged: INVALID before DUP before DNC, the rest READY; all or nothing.

        A campaign whose first load is large gets a partition of its own, fixed for life.
        """
        campaign, load_id = ticket.campaign, ticket.load_id

        async def work(tx: Transaction) -> None:
            # first: while this is held nobody takes the load for dead, however long the campaign's other loads take
            if await tx.fetch_one("loads.lock_mine", id=load_id, owner=ticket.owner) is None:
                raise NotAllowed(_TAKEN_OVER)
            await tx.fetch("loads.lock_campaign", space=_LOAD_LOCKS, campaign_id=campaign.id)
            staged = await _count_staged(tx, load_id)
            own = await tx.fetch_one("loads.next_part", campaign_id=campaign.id) if staged > OWN_PART_FROM else None
            if own:
                made = await _load_own_part(tx, campaign, load_id, own["part"])
            else:
                made = await _classify(tx, campaign, load_id, await _part_of(tx, campaign), "destination")
            if made != staged:
                raise ServerError(
                    f"load {load_id}: {staged} records were staged but {made} rows made; nothing was "
                    "kept. Load the file again."
                )
            await tx.fetch("loads.finish", id=load_id, owner=ticket.owner, rows_read=staged)
            await _execute(tx, "loads.drop_staging", load_id)
            await tx.fetch("campaigns.notice", campaigns=[campaign.id])

        await self.db.atomically(work, long=True)
        return await self.load_report(ticket)

    async def rehearse_load(
        self,
        campaign: Campaign,
        identity: str,
        chunks: Iterable[Sequence[Screened]],
        rejected: Callable[[Reject], None],
    ) -> LoadReport:
        """What a load would say, and its rejects; made beside the living rows and taken back. Raises NotAllowed."""
        _require_open(campaign)
        known = await self.db.fetch_one("loads.find", campaign_id=campaign.id, identity=identity)
        if known and known["state"] == "DONE":
            ticket = LoadTicket(known["id"], campaign, True, "", known["created_at"])
            async for reject in self.rejects(ticket):
                rejected(reject)
            return await self.load_report(ticket)
        report: dict[State, int] = {}
        with suppress(_Rehearsed):
            async with self.db.transaction(long=True) as tx:
                await _execute(tx, "loads.create_rehearsal", _REHEARSAL)
                await _execute(tx, "loads.create_rehearsed", _REHEARSAL, _REHEARSED)
                for chunk in chunks:
                    await _copy(tx, _REHEARSAL, chunk)
                part = await _part_of(tx, campaign)
                await _classify(tx, campaign, _REHEARSAL, part, _REHEARSED)
                place = {"part": part, "campaign_id": campaign.id, "load_id": _REHEARSAL}
                report = await _report(tx, place, _REHEARSED)
                async for reject in _rejects(tx, place, _REHEARSED):
                    rejected(reject)
                raise _Rehearsed
        return LoadReport(_REHEARSAL, False, report)

    async def find_load(self, campaign: Campaign, load_id: int) -> LoadTicket:
        """A load that is done. Raises NotFound."""
        row = await self.db.fetch_one("loads.by_id", id=load_id, campaign_id=campaign.id)
        if row is None or row["state"] != "DONE":
            raise NotFound(f"campaign {campaign.id} has no load {load_id} that is done; see its status")
        return LoadTicket(load_id, campaign, True, row["owner"], row["created_at"])

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
        async with self.db.transaction() as tx:
            part = await _part_of(tx, ticket.campaign)
        return {"part": part, "campaign_id": ticket.campaign.id, "load_id": ticket.load_id}

    async def fail_load(self, ticket: LoadTicket, error: str) -> None:
        """Give a load up: its staged records are dropped, the file may be loaded again."""

        async def work(tx: Transaction) -> None:
            if await tx.fetch("loads.fail", id=ticket.load_id, owner=ticket.owner, error=error):
                await _execute(tx, "loads.drop_staging", ticket.load_id)
                await tx.fetch("campaigns.notice", campaigns=[ticket.campaign.id])

        await self.db.atomically(work)

    async def fail_dead_loads(self) -> int:
        """Give up loads whose loader died; how many there were."""

        async def work(tx: Transaction) -> int:
            dead = await tx.fetch("loads.fail_dead")
            for row in dead:
                await _execute(tx, "loads.drop_staging", row["id"])
            await tx.fetch("campaigns.notice", campaigns=[row["campaign_id"] for row in dead])
            return len(dead)

        return await self.db.atomically(work)


def _require_open(campaign: Campaign) -> None:
    if campaign.state in (CampaignState.DONE, CampaignState.ABORTED):
        raise NotAllowed(f"campaign {campaign.id} is {campaign.state}; make a new campaign to load more")


class _Rehearsed(Exception):
    """Rolls a rehearsal back."""


async def _part_of(tx: Transaction, campaign: Campaign) -> int:
    """Asked anew: the campaign's first load may just have moved it."""
    row = await tx.fetch_one("loads.part_of", campaign_id=campaign.id)
    assert row
    return int(row["part"])


async def _copy(tx: Transaction, load_id: int, rows: Iterable[Screened]) -> None:
    cursor = tx.connection.cursor()
    async with cursor.copy(_named("loads.copy_staging", staging=f"staging_{load_id}")) as copy:
        for row in rows:
            values = Jsonb(dict(row.variables)) if row.variables else None
            await copy.write_row((row.line, row.raw, row.e164, row.reason, values))


async def _count_staged(tx: Transaction, load_id: int) -> int:
    (row,) = await _execute(tx, "loads.staged", load_id)
    return int(row["n"])


async def _classify(tx: Transaction, campaign: Campaign, load_id: int, part: int, target: str) -> int:
    """Staged records -> rows of `target`; how many."""
    params = {
        "part": part,
        "campaign_id": campaign.id,
        "load_id": load_id,
        "channel": campaign.policy.channel,
        "account_id": campaign.account_id,
    }
    made = await _execute(tx, "loads.classify", load_id, target, params=params)
    return sum(row["n"] for row in made)


async def _load_own_part(tx: Transaction, campaign: Campaign, load_id: int, part: int) -> int:
    """Two partitions of the campaign's own, for its destinations and their attempts."""
    rows, attempts = f"destination_{part}", f"attempt_{part}"
    await _execute(tx, "loads.make_part", load_id, rows)
    made = await _classify(tx, campaign, load_id, part, rows)
    await _execute(tx, "loads.make_attempts", load_id, attempts)
    for target, attach in ((rows, "loads.attach_part"), (attempts, "loads.attach_attempts")):
        await _execute(tx, "loads.bound_part", load_id, target, part)
        await _execute(tx, attach, load_id, target, part)
    await _execute(tx, "loads.analyze_part", load_id, rows)
    await tx.fetch("loads.move_to_part", campaign_id=campaign.id, part=part)
    return made


async def _report(tx: Transaction, place: Mapping[str, int], target: str = "destination") -> dict[State, int]:
    rows = await _execute(tx, "loads.report", place["load_id"], target, params=place)
    return {State(row["state"]): row["n"] for row in rows}


async def _rejects(
    tx: Transaction, place: Mapping[str, int], target: str = "destination"
) -> AsyncGenerator[Reject, None]:
    async with tx.connection.cursor(name="rejects") as cursor:
        await cursor.execute(_named("loads.rejects", staging="-", target=target), place)
        async for row in cursor:
            yield Reject(row["line"], row["raw"], row["e164"], State(row["state"]), row["reason"])


async def _execute(
    tx: Transaction,
    name: str,
    load_id: int,
    target: str = "",
    part: int = 0,
    params: Mapping[str, Any] | None = None,
) -> list[Row]:
    """A statement that names tables; its rows, if it gives any."""
    text = _named(name, staging=f"staging_{load_id}", target=target, part=part)
    cursor = await tx.connection.execute(text, params)
    return await cursor.fetchall() if cursor.description else []


def _named(name: str, *, staging: str, target: str = "", part: int = 0) -> sql.Composed:
    words: dict[str, sql.Composable] = {
        "{staging}": sql.Identifier(staging),
        "{target}": sql.Identifier(target or "-"),
        "{part}": sql.Literal(part),
    }
    pieces = re.split(r"(\{staging\}|\{target\}|\{part\})", statement(name))
    return sql.Composed([words.get(piece) or sql.SQL(piece) for piece in pieces])
