"""Brings a database to the schema of this version, once, however many start it at the same time."""

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, create_engine, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool

from dispatcher.domain.errors import ServerError

_LOCK = 7_261_003


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    return config


def migrate(url: str, to: str = "head") -> tuple[str | None, str]:
    """Apply what is missing; gives (revision before, revision now). Raises ServerError."""
    engine = create_engine(_driver(url), poolclass=NullPool)
    try:
        with engine.begin() as connection:
            connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
            before = _revision(connection)
            config = _config()
            config.attributes["connection"] = connection
            command.upgrade(config, to)
            after = _revision(connection)
    except DBAPIError as error:
        raise ServerError(_cannot("be migrated", error)) from error
    assert after
    return before, after


def newest_revision() -> str:
    """The revision that this version of the program needs."""
    head = ScriptDirectory.from_config(_config()).get_current_head()
    assert head
    return head


def require_newest(url: str) -> None:
    """Refuse a database that this version was not made for. Raises ServerError."""
    engine = create_engine(_driver(url), poolclass=NullPool)
    try:
        with engine.connect() as connection:
            found = _revision(connection)
    except DBAPIError as error:
        raise ServerError(_cannot("be used", error)) from error
    if found != newest_revision():
        state = f"has schema {found}" if found else "is empty"
        raise ServerError(f"the database {state}, this version needs {newest_revision()}; run: dispatcher migrate")


def _cannot(what: str, error: DBAPIError) -> str:
    reason = (str(error.orig).strip().splitlines() or ["no answer"])[0]
    return f"PostgreSQL cannot {what}: {reason}. Check that it runs and what DISPATCHER_DATABASE_URL says."


def _revision(connection: Connection) -> str | None:
    return MigrationContext.configure(connection).get_current_revision()


def _driver(url: str) -> str:
    return url.replace("postgresql://", "postgresql+psycopg://", 1).replace("postgres://", "postgresql+psycopg://", 1)
