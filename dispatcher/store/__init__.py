"""PostgreSQL: the queue, the schedule, the lock and the history."""

from dispatcher.store.postgres import PostgresStore

__all__ = ["PostgresStore"]
