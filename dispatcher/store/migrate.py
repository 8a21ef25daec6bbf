"""Brings a database to the schema of this version, once, however many start it at the same time."""

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection, create_engine, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool

from dispatcher.domain.errors import ServerError
from dispatcher.store.schema import REVISION, require_revision

_LOCK = 7_261_003


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    return config


def migrate(url: str, to: str = "head") -> tuple[str | None, str]:
    """Apply what is missing; gives (revision before, revision now). Raises ServerError, SchemaMismatch.

    A newer schema that this version can use stays as it is.
    """
    engine = create_engine(_driver(url), poolclass=NullPool)
    try:
        with engine.begin() as connection:
            connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
            before = _revision(connection)
            if before and before > REVISION:
                found = connection.execute(text("SELECT readable_from FROM schema_compatibility")).scalar()
                require_revision(before, found)
                return before, before
            config = _config()
            config.attributes["connection"] = connection
            command.upgrade(config, to)
            after = _revision(connection)
    except DBAPIError as error:
        raise ServerError(_cannot("be migrated", error)) from error
    assert after
    return before, after


def _cannot(what: str, error: DBAPIError) -> str:
    reason = (str(error.orig).strip().splitlines() or ["no answer"])[0]
    return f"PostgreSQL cannot {what}: {reason}. Check that it runs and what DISPATCHER_DATABASE_URL says."


def _revision(connection: Connection) -> str | None:
    return MigrationContext.configure(connection).get_current_revision()


def _driver(url: str) -> str:
    return url.replace("postgresql://", "postgresql+psycopg://", 1).replace("postgres://", "postgresql+psycopg://", 1)
