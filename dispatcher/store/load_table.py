"""The table of a load: filled by COPY, then indexed, and attached as a partition last."""

import asyncio
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import sql

from dispatcher.domain.campaign import Campaign
from dispatcher.domain.errors import ServerError
from dispatcher.domain.loading import Deduplicated, LoadTicket
from dispatcher.domain.screening import Screened
from dispatcher.domain.states import State
from dispatcher.store.database import Database, Row, Transaction
from dispatcher.store.queries import composed

_ATTACH_TRIES = 5
_WORK_MEMORY = "256MB"
"""For building an index."""
_SPECIAL = str.maketrans({"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"})
_NULL = r"\N"


@dataclass(frozen=True, slots=True)
class LoadTable:
    """The tables of one load."""

    load_id: int
    part: int
    campaign: Campaign
    target: str
    duplicates: str

    @classmethod
    def of(cls, ticket: LoadTicket) -> "LoadTable":
        part = ticket.part
        return cls(ticket.load_id, part, ticket.campaign, f"destination_{part}", f"load_duplicates_{part}")

    @property
    def scope(self) -> dict[str, Any]:
        """Whose do-not-call lists apply."""
        return {
            "campaign_id": self.campaign.id,
            "account_id": self.campaign.account_id,
            "channel": self.campaign.policy.channel,
        }

    async def run(
        self, tx: Transaction, name: str, /, names: Mapping[str, str] | None = None, **params: Any
    ) -> list[Row]:
        """A statement about these tables; its rows, if it gives any."""
        cursor = await tx.connection.execute(self.text(name, names), params or None)
        return await cursor.fetchall() if cursor.description else []

    def text(self, name: str, names: Mapping[str, str] | None = None) -> sql.Composed:
        """A named statement, its {words} replaced."""
        words: dict[str, sql.Composable] = {
            "target": sql.Identifier(self.target),
            "duplicates": sql.Identifier(self.duplicates),
            "attempts": sql.Identifier(f"attempt_{self.part}"),
            "part": sql.Literal(self.part),
            "campaign": sql.Literal(self.campaign.id),
            "load": sql.Literal(self.load_id),
            "channel": sql.Literal(self.campaign.policy.channel),
            **{word: sql.Identifier(table) for word, table in (names or {}).items()},
        }
        return composed(name, **words)


async def copy(tx: Transaction, table: LoadTable, block: Deduplicated, now: str) -> None:
    """COPY a block, its rows in their final state; duplicates go to a second table until all first lines are known."""
    listed = await _listed(tx, table, block.unique)
    async with tx.connection.cursor().copy(table.text("loads.copy")) as out:
        await out.write("".join(_copy_lines(block.unique, listed, now)))
    if block.duplicates:
        async with tx.connection.cursor().copy(table.text("loads.copy_duplicates")) as out:
            await out.write("".join(f"{_columns(row)}\n" for row in block.duplicates))


async def _listed(tx: Transaction, table: LoadTable, rows: Sequence[Screened]) -> Mapping[str, str]:
    """The numbers that a list names now, each with the name of one such list."""
    numbers = ",".join([row.e164 for row in rows if row.e164 and row.reason is None])
    lists = await tx.fetch("dnc.listed", numbers=f"{{{numbers}}}", **table.scope)
    return {number: row["list"] for row in lists for number in row["numbers"]}


def _copy_lines(rows: Sequence[Screened], listed: Mapping[str, str], now: str) -> Iterator[str]:
    for row in rows:
        if row.reason is not None:
            yield f"{_columns(row)}\t{State.INVALID}\t{row.reason}\t{now}\n"
        elif name := listed.get(row.e164 or ""):
            yield f"{_columns(row)}\t{State.DNC}\tLIST {name.translate(_SPECIAL)}\t{now}\n"
        else:
            yield f"{_columns(row)}\t{State.READY}\t{_NULL}\t{_NULL}\n"


def _columns(row: Screened) -> str:
    line, raw, e164, _, variables = row
    if raw != e164:
        raw = raw.translate(_SPECIAL)
    if variables is None:
        return f"{line}\t{raw}\t{e164 or _NULL}\t{_NULL}"
    # JSON has escaped the control characters already
    return f"{line}\t{raw}\t{e164 or _NULL}\t" + variables.replace("\\", "\\\\")


async def make_indexes(db: Database, tx: Transaction, table: LoadTable) -> None:
    """Build the indexes of a partition, half of them in a second session (no one else uses the table); ANALYZE."""
    wanted = await tx.fetch("loads.indexes", parent="destination")
    second = asyncio.create_task(_make_in_second_session(db, table, wanted[1::2]))
    try:
        await _make(tx, table, wanted[::2])
    finally:
        await second
    for index in wanted:
        if index["constraint_type"]:
            await tx.connection.execute(sql.SQL(add_constraint(table.target, index)))
    await table.run(tx, "loads.analyze")


async def _make_in_second_session(db: Database, table: LoadTable, wanted: Sequence[Row]) -> None:
    async with db.transaction(long=True) as tx:
        await _make(tx, table, wanted)


async def _make(tx: Transaction, table: LoadTable, wanted: Sequence[Row]) -> None:
    await tx.fetch("loads.work_memory", memory=_WORK_MEMORY)
    for index in wanted:
        await tx.connection.execute(sql.SQL(create_index(table.target, index)))


def create_index(table: str, index: Row) -> str:
    """The statement that gives a table an index of its parent (a row of loads.indexes)."""
    made = f"INDEX IF NOT EXISTS {_index_name(table, index)} ON {table} "
    return re.sub(r"INDEX \S+ ON ONLY \S+ ", made, index["definition"])


def add_constraint(table: str, index: Row) -> str:
    """The statement that makes such an index a primary key or a unique constraint."""
    kind = {"p": "PRIMARY KEY", "u": "UNIQUE"}[index["constraint_type"]]
    name = _index_name(table, index)
    return f"ALTER TABLE {table} ADD CONSTRAINT {name} {kind} USING INDEX {name}"


def _index_name(table: str, index: Row) -> str:
    return str(index["name"]).replace("destination", table, 1)


async def attach(tx: Transaction, table: LoadTable) -> None:
    """Make the table the campaign's partition. Raises ServerError when something holds `destination` for long."""
    for turn in range(1, _ATTACH_TRIES + 1):
        try:
            async with tx.connection.transaction():
                await tx.connection.execute("SET LOCAL lock_timeout = '5s'")
                await table.run(tx, "loads.attach")
        except psycopg.errors.LockNotAvailable as error:
            if turn == _ATTACH_TRIES:
                raise ServerError(
                    f"load {table.load_id} could not add its partition: something holds the table 'destination'. "
                    "Nothing was kept; end what holds it (see pg_locks) and load the file again."
                ) from error
            await asyncio.sleep(turn)
        else:
            return
