"""The table that a load fills: written once by COPY, indexed after, and attached last."""

import asyncio
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import sql

from dispatcher.domain.campaign import Campaign
from dispatcher.domain.errors import ServerError
from dispatcher.domain.loading import LoadTicket, Told
from dispatcher.domain.screening import Screened
from dispatcher.domain.states import State
from dispatcher.store.database import Database, Row, Transaction
from dispatcher.store.queries import statement

_ATTACH_TRIES = 5
_NAMES = re.compile(r"\{(\w+)\}")
_SPECIAL = str.maketrans({"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"})
_NULL = r"\N"


@dataclass(frozen=True, slots=True)
class Filling:
    """The tables of one load."""

    load_id: int
    part: int
    campaign: Campaign
    target: str
    repeats: str

    @classmethod
    def of(cls, ticket: LoadTicket) -> "Filling":
        part = ticket.part
        return cls(ticket.load_id, part, ticket.campaign, f"destination_{part}", f"load_repeats_{part}")

    @property
    def place(self) -> dict[str, Any]:
        """Whose lists and rows are asked."""
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
            "repeats": sql.Identifier(self.repeats),
            "attempts": sql.Identifier(f"attempt_{self.part}"),
            "part": sql.Literal(self.part),
            "campaign": sql.Literal(self.campaign.id),
            "load": sql.Literal(self.load_id),
            "channel": sql.Literal(self.campaign.policy.channel),
            **{word: sql.Identifier(table) for word, table in (names or {}).items()},
        }
        pieces = _NAMES.split(statement(name))
        return sql.Composed([words[x] if i % 2 else sql.SQL(x) for i, x in enumerate(pieces)])


async def copy(tx: Transaction, filling: Filling, told: Told, now: str) -> None:
    """Write a block, in the state that its rows are to have; repeats wait beside until all first lines are known."""
    listed = await _listed(tx, filling, told.firsts)
    async with tx.connection.cursor().copy(filling.text("loads.copy")) as out:
        await out.write("".join(_lines(told.firsts, listed, now)))
    if told.repeats:
        async with tx.connection.cursor().copy(filling.text("loads.copy_repeats")) as out:
            await out.write("".join(f"{_kept(row)}\n" for row in told.repeats))


async def _listed(tx: Transaction, filling: Filling, rows: Sequence[Screened]) -> Mapping[str, str]:
    """By number: a list that names it now."""
    numbers = ",".join([row.e164 for row in rows if row.e164 and row.reason is None])
    lists = await tx.fetch("dnc.listed", numbers=f"{{{numbers}}}", **filling.place)
    return {number: row["list"] for row in lists for number in row["numbers"]}


def _lines(rows: Sequence[Screened], listed: Mapping[str, str], now: str) -> Iterator[str]:
    for row in rows:
        if row.reason is not None:
            yield f"{_kept(row)}\t{State.INVALID}\t{row.reason}\t{now}\n"
        elif name := listed.get(row.e164 or ""):
            yield f"{_kept(row)}\t{State.DNC}\tLIST {name.translate(_SPECIAL)}\t{now}\n"
        else:
            yield f"{_kept(row)}\t{State.READY}\t{_NULL}\t{_NULL}\n"


def _kept(row: Screened) -> str:
    line, raw, e164, _, variables = row
    if raw != e164:
        raw = raw.translate(_SPECIAL)
    if variables is None:
        return f"{line}\t{raw}\t{e164 or _NULL}\t{_NULL}"
    # what JSON writes needs no other escape
    return f"{line}\t{raw}\t{e164 or _NULL}\t" + variables.replace("\\", "\\\\")


async def make_indexes(db: Database, tx: Transaction, filling: Filling) -> None:
    """Build what every partition has, half of it beside `tx`: nobody else knows the table yet. Then ANALYZE."""
    wanted = await tx.fetch("loads.indexes", parent="destination")
    beside = asyncio.create_task(_make_beside(db, filling, wanted[1::2]))
    try:
        await _make(tx, filling, wanted[::2])
    finally:
        await beside
    for index in wanted:
        if index["constraint_type"]:
            await tx.connection.execute(_constraint_of(filling, index))
    await filling.run(tx, "loads.analyze")


async def _make_beside(db: Database, filling: Filling, wanted: Sequence[Row]) -> None:
    async with db.transaction(long=True) as tx:
        await _make(tx, filling, wanted)


async def _make(tx: Transaction, filling: Filling, wanted: Sequence[Row]) -> None:
    await tx.fetch("loads.work_memory")
    for index in wanted:
        await tx.connection.execute(_index_of(filling, index))


def _index_of(filling: Filling, index: Row) -> sql.SQL:
    made = f"INDEX IF NOT EXISTS {_index_name(filling, index)} ON {filling.target} "
    return sql.SQL(re.sub(r"INDEX \S+ ON ONLY \S+ ", made, index["definition"]))


def _constraint_of(filling: Filling, index: Row) -> sql.SQL:
    kind = {"p": "PRIMARY KEY", "u": "UNIQUE"}[index["constraint_type"]]
    name = _index_name(filling, index)
    return sql.SQL(f"ALTER TABLE {filling.target} ADD CONSTRAINT {name} {kind} USING INDEX {name}")


def _index_name(filling: Filling, index: Row) -> str:
    return str(index["name"]).replace("destination", filling.target, 1)


async def attach(tx: Transaction, filling: Filling) -> None:
    """Make the table the campaign's partition. Raises ServerError when something holds `destination` for long."""
    for turn in range(1, _ATTACH_TRIES + 1):
        try:
            async with tx.connection.transaction():
                await tx.connection.execute("SET LOCAL lock_timeout = '5s'")
                await filling.run(tx, "loads.attach")
        except psycopg.errors.LockNotAvailable as error:
            if turn == _ATTACH_TRIES:
                raise ServerError(
                    f"load {filling.load_id} could not add its partition: something holds the table 'destination'. "
                    "Nothing was kept; end what holds it (see pg_locks) and load the file again."
                ) from error
            await asyncio.sleep(turn)
        else:
            return
