"""Loads: staged by COPY, classified in one statement, kept for ever."""

from collections.abc import AsyncIterator, Iterable
from datetime import timedelta

from psycopg import sql
from psycopg.types.json import Jsonb

from dispatcher.domain.campaign import Campaign, CampaignState
from dispatcher.domain.errors import NotAllowed, ServerError
from dispatcher.domain.loading import LoadReport, LoadTicket, Reject
from dispatcher.domain.screening import Screened
from dispatcher.domain.states import State
from dispatcher.store.database import Database, Row, Transaction
from dispatcher.store.queries import statement

_LOAD_LOCKS = 7_261_002
"""First half of the advisory lock that lets one loader at a time classify into a campaign."""

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
            state = CampaignState(locked["state"])
            if state in (CampaignState.DONE, CampaignState.ABORTED):
                raise NotAllowed(f"campaign {campaign.id} is {state}; make a new campaign to load more")
            known = await tx.fetch_one("loads.find", campaign_id=campaign.id, identity=identity)
            if known and known["state"] == "DONE":
                return LoadTicket(known["id"], campaign, True, owner, known["created_at"])
            if known and known["is_alive"]:
                raise NotAllowed(f"this file is being loaded into campaign {campaign.id} right now; wait for it")
            made = await tx.fetch_one(
                "loads.begin", campaign_id=campaign.id, identity=identity, source=source, owner=owner, lease=lease
            )
            assert made
            for name in ("loads.drop_staging", "loads.create_staging"):
                await tx.connection.execute(_staging_statement(name, made["id"]))
            return LoadTicket(made["id"], campaign, False, owner, made["opened_at"])

        return await self.db.atomically(work)

    async def stage(self, ticket: LoadTicket, rows: Iterable[Screened], *, lease: timedelta) -> None:
        """COPY a chunk of records beside the table, and stay alive. Raises NotAllowed when another took over."""
        async with self.db.transaction() as tx:
            alive = await tx.fetch_one("loads.heartbeat", id=ticket.load_id, owner=ticket.owner, lease=lease)
            if alive is None:
                raise NotAllowed(_TAKEN_OVER)
            cursor = tx.connection.cursor()
            async with cursor.copy(_staging_statement("loads.copy_staging", ticket.load_id)) as copy:
                for row in rows:
                    values = Jsonb(dict(row.variables)) if row.variables else None
                    await copy.write_row((row.line, row.raw, row.e164, row.reason, values))

    async def finish_load(self, ticket: LoadTicket) -> LoadReport:
        """Classify what was staged: INVALID before DUP before DNC, the rest READY; all or nothing."""
        campaign = ticket.campaign

        async def work(tx: Transaction) -> None:
            if await tx.fetch_one("loads.lock_mine", id=ticket.load_id, owner=ticket.owner) is None:
                raise NotAllowed(_TAKEN_OVER)
            await tx.fetch("loads.lock_campaign", space=_LOAD_LOCKS, campaign_id=campaign.id)
            staged = await self._staged(tx, ticket.load_id)
            params = {
                "part": campaign.part,
                "campaign_id": campaign.id,
                "load_id": ticket.load_id,
                "channel": campaign.policy.channel,
                "account_id": campaign.account_id,
            }
            cursor = await tx.connection.execute(_staging_statement("loads.classify", ticket.load_id), params)
            made = sum(row["n"] for row in await cursor.fetchall())
            if made != staged:
                raise ServerError(
                    f"load {ticket.load_id}: {staged} records were staged but {made} rows made; nothing was "
                    "kept. Load the file again."
                )
            await tx.fetch("loads.finish", id=ticket.load_id, owner=ticket.owner, rows_read=staged)
            await tx.connection.execute(_staging_statement("loads.drop_staging", ticket.load_id))

        await self.db.atomically(work)
        return await self.load_report(ticket)

    async def _staged(self, tx: Transaction, load_id: int) -> int:
        cursor = await tx.connection.execute(_staging_statement("loads.staged", load_id))
        row = await cursor.fetchone()
        assert row
        return int(row["n"])

    async def load_report(self, ticket: LoadTicket) -> LoadReport:
        """What the load made of its records."""
        campaign = ticket.campaign
        rows = await self.db.fetch("loads.report", part=campaign.part, campaign_id=campaign.id, load_id=ticket.load_id)
        return LoadReport(ticket.load_id, ticket.is_done, {State(row["state"]): row["n"] for row in rows})

    async def rejects(self, ticket: LoadTicket) -> AsyncIterator[Reject]:
        """The records of the load that are not to be dialled, in the order of the file, streamed."""
        campaign = ticket.campaign
        params = {"part": campaign.part, "campaign_id": campaign.id, "load_id": ticket.load_id}
        async with (
            self.db.transaction() as tx,
            tx.connection.cursor(name="rejects") as cursor,
        ):
            await cursor.execute(sql.SQL(statement("loads.rejects")), params)
            async for row in cursor:
                yield _reject(row)

    async def fail_load(self, ticket: LoadTicket, error: str) -> None:
        """Give a load up: its staged records are dropped, the file may be loaded again."""

        async def work(tx: Transaction) -> None:
            if await tx.fetch("loads.fail", id=ticket.load_id, owner=ticket.owner, error=error):
                await tx.connection.execute(_staging_statement("loads.drop_staging", ticket.load_id))

        await self.db.atomically(work)

    async def fail_dead_loads(self) -> int:
        """Give up loads whose loader died; how many there were."""

        async def work(tx: Transaction) -> int:
            dead = await tx.fetch("loads.fail_dead")
            for row in dead:
                await tx.connection.execute(_staging_statement("loads.drop_staging", row["id"]))
            return len(dead)

        return await self.db.atomically(work)


def _staging_statement(name: str, load_id: int) -> sql.Composed:
    table = sql.Identifier(f"staging_{int(load_id)}")
    before, *after = statement(name).split("{staging}")
    parts: list[sql.Composable] = [sql.SQL(before)]
    for text in after:
        parts += [table, sql.SQL(text)]
    return sql.Composed(parts)


def _reject(row: Row) -> Reject:
    return Reject(row["line"], row["raw"], row["e164"], State(row["state"]), row["reason"])
