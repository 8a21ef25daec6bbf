"""A pool of connections; transactions, tried again when PostgreSQL aborts them; foreign errors, translated."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import psycopg
from psycopg import AsyncConnection, sql
from psycopg.rows import DictRow, dict_row
from psycopg_pool import AsyncConnectionPool, PoolTimeout

from dispatcher.domain.errors import DispatcherError, Refused, ServerError
from dispatcher.store.queries import statement

T = TypeVar("T")
Row = dict[str, Any]
OLDEST_POSTGRES = 15
_ABORTED = (psycopg.errors.DeadlockDetected, psycopg.errors.SerializationFailure)
_TRIES = 5


class Transaction:
    """Statements by name, inside one transaction."""

    def __init__(self, connection: AsyncConnection[DictRow]) -> None:
        self.connection = connection

    async def fetch(self, name: str, /, **params: Any) -> list[Row]:
        """The rows of a named statement; none if it gives none."""
        cursor = await self.connection.execute(_literal(statement(name)), params)
        return await cursor.fetchall() if cursor.description else []

    async def fetch_one(self, name: str, /, **params: Any) -> Row | None:
        """The first row, or None."""
        rows = await self.fetch(name, **params)
        return rows[0] if rows else None

    async def pipeline(self, steps: Sequence[tuple[str, dict[str, Any]]]) -> list[list[Row]]:
        """Several statements in one round trip, in order; each sees what the ones before it did."""
        async with self.connection.pipeline():
            cursors = [await self.connection.execute(_literal(statement(name)), params) for name, params in steps]
        return [await c.fetchall() if c.description else [] for c in cursors]


def _literal(text: str) -> sql.SQL:
    return sql.SQL(text)


class Database:
    """The pool. Made and used in one event loop of one process, never across a fork."""

    def __init__(self, url: str, size: int = 8) -> None:
        self._url = url
        self._pool: AsyncConnectionPool[AsyncConnection[DictRow]] = AsyncConnectionPool(
            url,
            connection_class=AsyncConnection[DictRow],
            kwargs={"row_factory": dict_row, "application_name": "dispatcher"},
            min_size=1,
            max_size=size,
            timeout=10,
            open=False,
            check=AsyncConnectionPool.check_connection,
        )

    async def open(self) -> None:
        """Connect. Raises ServerError."""
        try:
            # the pool would only say that it took too long; one connection says why
            await (await AsyncConnection.connect(self._url, connect_timeout=5)).close()
            await self._pool.open(wait=True, timeout=15)
        except (psycopg.Error, PoolTimeout) as error:
            await self._pool.close()
            raise _away(error) from error

    async def close(self) -> None:
        await self._pool.close()

    async def check_server(self) -> None:
        """Refuse a server that is too old or that may forget a commit. Raises ServerError."""
        async with self.transaction() as tx:
            version = tx.connection.info.server_version // 10000
            cursor = await tx.connection.execute(
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
    async def transaction(self) -> AsyncIterator[Transaction]:
        """One transaction. Raises ServerError when the server is away."""
        try:
            async with self._pool.connection() as connection, connection.transaction():
                yield Transaction(connection)
        except _ABORTED:
            raise
        except (psycopg.IntegrityError, psycopg.DataError, psycopg.ProgrammingError) as error:
            # the message of a DataError holds the value that was refused
            said = None if isinstance(error, psycopg.DataError) else error.diag.message_primary
            refused = error.diag.constraint_name or said or type(error).__name__
            raise Refused(f"the database refused a write ({refused}); nothing was changed") from error
        except (psycopg.Error, PoolTimeout) as error:
            raise _away(error) from error

    async def atomically(self, work: Callable[[Transaction], Awaitable[T]]) -> T:
        """Run `work` in a transaction; when PostgreSQL aborts it for a conflict, nothing was done: again."""
        for turn in range(_TRIES):
            try:
                async with self.transaction() as tx:
                    return await work(tx)
            except _ABORTED as error:
                if turn == _TRIES - 1:
                    raise ServerError(f"PostgreSQL aborted a transaction {_TRIES} times: {error}") from error
                await asyncio.sleep(0.01 * (turn + 1))
        raise AssertionError

    async def fetch(self, name: str, /, **params: Any) -> list[Row]:
        """One statement in a transaction of its own."""

        async def work(tx: Transaction) -> list[Row]:
            return await tx.fetch(name, **params)

        return await self.atomically(work)

    async def fetch_one(self, name: str, /, **params: Any) -> Row | None:
        """One statement in a transaction of its own: its first row."""
        rows = await self.fetch(name, **params)
        return rows[0] if rows else None


def _away(error: Exception) -> DispatcherError:
    first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    remedy = "Check that it runs and what DISPATCHER_DATABASE_URL says"
    if isinstance(error, psycopg.errors.DiskFull):
        remedy = "Make room on its disk"
    elif isinstance(error, psycopg.errors.LockNotAvailable):
        remedy = "Something else holds what this needs; try again in a minute"
    return ServerError(
        f"PostgreSQL cannot be used: {first}. {remedy}; nothing is lost, the work goes on when it is back."
    )
