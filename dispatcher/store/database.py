"""A pool of connections; messages and transactions on it; foreign errors, translated.

What the dial path has to say is said as one message: a simple-protocol text of several statements, COMMIT included.
The server runs it whole, so no lock waits for our event loop. Values are written into the text as literals: a
prepared statement may turn to a generic plan, which locks every partition of a table.
"""

import asyncio
import re
import select
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import datetime
from typing import Any, TypeVar

import psycopg
from psycopg import AsyncClientCursor, AsyncConnection, sql
from psycopg.rows import DictRow, dict_row
from psycopg_pool import AsyncConnectionPool, PoolTimeout

from dispatcher.domain.errors import DispatcherError, Refused, ServerError
from dispatcher.store.queries import statement

T = TypeVar("T")
Row = dict[str, Any]
Step = tuple[str, Mapping[str, Any]]
"""A named statement and its values."""
OLDEST_POSTGRES = 15
APPLICATION = "dispatcher"
LONG_APPLICATION = "dispatcher-long"
"""Sessions in a load or an export call themselves so: they may be old."""
_HAS_TRANSACTION_TIMEOUT = 170_000
_ABORTED = (psycopg.errors.DeadlockDetected, psycopg.errors.SerializationFailure)
_TRIES = 5
_LIMITS = {"lock_timeout": "5s", "statement_timeout": "10s"}
_IDLE = {"idle_in_transaction_session_timeout": "5s"}
_LONG_LIMITS = {"lock_timeout": "0", "statement_timeout": "0", "idle_in_transaction_session_timeout": "60s"}
_TRANSMISSION = {
    # without these a host that vanishes keeps a session, and what it has locked, for hours
    "keepalives": 1,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 15_000,
}
_SERVER_WIRE = {"tcp_keepalives_idle": "10", "tcp_keepalives_interval": "5", "tcp_keepalives_count": "3"}
_COMMAND_S = 10


class PartitionGone(Refused):
    """A statement named a partition that was purged; nothing was changed."""


class Transaction:
    """Statements by name, inside one transaction."""

    def __init__(self, connection: AsyncConnection[DictRow]) -> None:
        self.connection = connection

    async def fetch(self, name: str, /, **params: Any) -> list[Row]:
        """The rows of a named statement; none if it gives none."""
        cursor = await self.connection.execute(_text(name, params), params)
        return await cursor.fetchall() if cursor.description else []

    async def fetch_one(self, name: str, /, **params: Any) -> Row | None:
        """The first row, or None."""
        rows = await self.fetch(name, **params)
        return rows[0] if rows else None


def _literal(text: str) -> sql.SQL:
    return sql.SQL(text)


def _text(name: str, params: Mapping[str, Any]) -> sql.SQL:
    """A named statement; the one partition that it is about is named by its own table."""
    text = statement(name)
    return sql.SQL(text.replace("{part}", str(int(params["part"]))) if "{part}" in text else text)


def array(values: Sequence[str | bytes | int | float | bool | datetime | None]) -> str:
    """An array as PostgreSQL reads it: a statement's many rows are as many arrays, and these are cheap to write."""
    return "{" + ",".join([_element(value) for value in values]) + "}"


def _element(value: str | bytes | int | float | bool | datetime | None) -> str:
    if value is None:
        return "NULL"
    if isinstance(value, bytes):
        return f'"\\\\x{value.hex()}"'
    if isinstance(value, str):
        return value if _PLAIN.fullmatch(value) else '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
    if isinstance(value, datetime):
        return f'"{value.isoformat()}"'
    return str(value)


_PLAIN = re.compile(r"(?!null$)[A-Za-z0-9_.:+@-]+", re.IGNORECASE)
"""What needs no quotes."""


class Database:
    """The pool. Made and used in one event loop of one process, never across a fork."""

    def __init__(self, url: str, size: int = 8) -> None:
        self._url = url
        self._pool: AsyncConnectionPool[AsyncConnection[DictRow]] = AsyncConnectionPool(
            url,
            connection_class=AsyncConnection[DictRow],
            kwargs={
                "row_factory": dict_row,
                "cursor_factory": AsyncClientCursor,
                "application_name": APPLICATION,
                "autocommit": True,
                **_TRANSMISSION,
            },
            min_size=1,
            max_size=size,
            timeout=10,
            open=False,
            configure=_keep_socket,
            check=_require_alive,
        )

    async def open(self) -> None:
        """Connect. Raises ServerError."""
        try:
            # the pool would only say that it took too long; one connection says why
            await (await AsyncConnection.connect(self._url, connect_timeout=5)).close()
            await self._pool.open(wait=True, timeout=15)
        except (psycopg.Error, PoolTimeout) as error:
            await self._pool.close()
            raise _server_error(error) from error

    async def close(self) -> None:
        await self._pool.close()

    async def check_server(self) -> None:
        """Refuse a server that is too old or that may forget a commit. Raises ServerError."""
        async with self._connection() as connection:
            version = connection.info.server_version // 10000
            cursor = await connection.execute(
                "SELECT current_setting('synchronous_commit') AS commit, current_setting('fsync') AS fsync,"
                " current_setting('transaction_isolation') AS isolation"
            )
            settings = (await cursor.fetchall())[0]
        if version < OLDEST_POSTGRES:
            raise ServerError(
                f"PostgreSQL {version} is too old: {OLDEST_POSTGRES} or later is needed. "
                "Point DISPATCHER_DATABASE_URL at a newer server."
            )
        if settings["commit"] in ("off", "local") or settings["fsync"] != "on":
            raise ServerError(
                "PostgreSQL may forget a commit (synchronous_commit or fsync is off): a crash could then dial "
                "somebody twice. Set both to on."
            )
        if settings["isolation"] != "read committed":
            raise ServerError("PostgreSQL's default_transaction_isolation must be 'read committed'.")

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[AsyncConnection[DictRow]]:
        """A connection of the pool, with errors translated."""
        try:
            async with self._pool.connection() as connection:
                yield connection
        except _ABORTED:
            raise
        except psycopg.errors.UndefinedTable as error:
            raise PartitionGone(f"the database has no such table: {error.diag.message_primary}") from error
        except (psycopg.IntegrityError, psycopg.DataError, psycopg.ProgrammingError) as error:
            # the message of a DataError holds the value that was refused
            said = None if isinstance(error, psycopg.DataError) else error.diag.message_primary
            refused = error.diag.constraint_name or said or type(error).__name__
            raise Refused(f"the database refused a write ({refused}); nothing was changed") from error
        except (psycopg.Error, PoolTimeout) as error:
            raise _server_error(error) from error

    async def message(self, steps: Sequence[Step]) -> list[list[Row]]:
        """Several statements as one message: sent at once, answered at once, committed at once.

        Each statement sees what the ones before it did, and what others committed while they waited. Gives the rows
        of each. Raises ServerError when the answer is lost; the server may commit all the same, even later.
        """

        return await self._send(steps, _LIMITS | _LOOK_UPS)

    async def _send(self, steps: Sequence[Step], settings: Mapping[str, str]) -> list[list[Row]]:
        """The rows of each statement. Settings end with the transaction: the session may be another's afterwards."""
        begin = _begin(settings)

        async def once() -> list[list[Row]]:
            async with self._connection() as connection:
                cursor = AsyncClientCursor(connection)
                said = [cursor.mogrify(_text(name, params), params) for name, params in steps]
                await cursor.execute(_literal(";\n".join([begin, *said, "COMMIT"])))
                return await _answers(cursor, before=1 + len(settings), n=len(steps))

        return await _retry_if_aborted(once)

    @asynccontextmanager
    async def transaction(self, *, long: bool = False) -> AsyncIterator[Transaction]:
        """A transaction of several messages. Raises ServerError when the server is away.

        Not for the dial path: what it has locked waits for our event loop. `long`: a load or an export.
        """
        async with self._connection() as connection:
            await connection.execute(_literal(_begin(_limits(connection, long=long))))
            try:
                yield Transaction(connection)
            except BaseException:
                with suppress(psycopg.Error):  # a broken connection has rolled back by itself
                    await connection.execute("ROLLBACK")
                raise
            committed = await connection.execute("COMMIT")
            if committed.statusmessage != "COMMIT":
                raise ServerError("PostgreSQL rolled a transaction back instead of committing it; nothing was changed.")

    async def atomically(self, work: Callable[[Transaction], Awaitable[T]], *, long: bool = False) -> T:
        """Run `work` in a transaction; when PostgreSQL aborts it for a conflict, nothing was done: again."""

        async def once() -> T:
            async with self.transaction(long=long) as tx:
                return await work(tx)

        return await _retry_if_aborted(once)

    async def fetch(self, name: str, /, **params: Any) -> list[Row]:
        """One statement, which is a transaction of its own."""

        (rows,) = await self._send([(name, params)], _LIMITS)
        return rows

    async def command(self, text: str) -> None:
        """One command that may not stand in a transaction, so that no setting can limit it."""
        async with self._connection() as connection:
            try:
                await asyncio.wait_for(connection.execute(text.encode()), _COMMAND_S)
            except TimeoutError as error:
                raise ServerError(f"PostgreSQL did not carry a command out within {_COMMAND_S} s") from error

    async def fetch_long(self, name: str, /, **params: Any) -> list[Row]:
        """One statement that reads a whole table and may take its time."""
        async with self.transaction(long=True) as tx:
            return await tx.fetch(name, **params)

    async def fetch_one(self, name: str, /, **params: Any) -> Row | None:
        """One statement, which is a transaction of its own: its first row."""
        rows = await self.fetch(name, **params)
        return rows[0] if rows else None


_LOOK_UPS = {"enable_seqscan": "off", "random_page_cost": "1.1"}
"""Of messages. They look rows up; the planner would read a table whole that is small or little known yet."""


async def _answers(cursor: AsyncClientCursor[DictRow], *, before: int, n: int) -> list[list[Row]]:
    """The rows of n statements, after the answers of those that began the transaction."""
    answers: list[list[Row]] = []
    for _ in range(before):
        cursor.nextset()
    for _ in range(n):
        answers.append(await cursor.fetchall() if cursor.description else [])
        cursor.nextset()
    if cursor.statusmessage != "COMMIT":  # COMMIT of a failed transaction answers ROLLBACK and raises nothing
        raise ServerError("PostgreSQL rolled a message back instead of committing it; nothing was changed.")
    return answers


def _limits(connection: AsyncConnection[DictRow], *, long: bool) -> dict[str, str]:
    limits = dict(_LONG_LIMITS) if long else _LIMITS | _IDLE
    if connection.info.server_version >= _HAS_TRANSACTION_TIMEOUT:
        limits["transaction_timeout"] = "0" if long else "10s"
    if long:
        limits["application_name"] = LONG_APPLICATION
    return limits


def _begin(settings: Mapping[str, str]) -> str:
    return "; ".join(["BEGIN", *(f"SET LOCAL {name} = '{value}'" for name, value in settings.items())])


async def _retry_if_aborted(work: Callable[[], Awaitable[T]]) -> T:
    for turn in range(_TRIES):
        try:
            return await work()
        except _ABORTED as error:
            if turn == _TRIES - 1:
                raise ServerError(f"PostgreSQL aborted a transaction {_TRIES} times: {error}") from error
            await asyncio.sleep(0.01 * (turn + 1))
    raise AssertionError


async def _keep_socket(connection: AsyncConnection[DictRow]) -> None:
    """Have the server end the session of a host that vanished: an option of its socket, not of what runs on it.

    No start-up option, because PgBouncer refuses those.
    """
    await connection.execute(_literal("; ".join(f"SET {name} = '{value}'" for name, value in _SERVER_WIRE.items())))


async def _require_alive(connection: AsyncConnection[DictRow]) -> None:
    """Without asking the server: an idle connection on which something can be read has been closed by it."""
    poll = select.poll()
    poll.register(connection.fileno(), select.POLLIN)
    if poll.poll(0):
        await connection.close()  # else the pool would give it out again
        raise psycopg.OperationalError("the server has closed the connection")


def _server_error(error: Exception) -> DispatcherError:
    first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    remedy = "Check that it runs and what DISPATCHER_DATABASE_URL says"
    if isinstance(error, psycopg.errors.DiskFull):
        remedy = "Make room on its disk"
    elif isinstance(error, psycopg.errors.LockNotAvailable):
        remedy = "Something else holds what this needs; try again in a minute"
    return ServerError(
        f"PostgreSQL cannot be used: {first}. {remedy}; nothing is lost, the work goes on when it is back."
    )
