"""Processes refuse a schema that they were not made for; a newer one that says that they can use it is accepted."""

import os
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest
from alembic.script import ScriptDirectory

from config.settings import Settings
from dispatcher.bootstrap import Urls
from dispatcher.domain.errors import SchemaMismatch
from dispatcher.store import PostgresStore
from dispatcher.store.migrate import _config, migrate
from dispatcher.store.schema import REVISION, require_revision
from dispatcher.web.app import make_app

ROOT = Path(__file__).parents[2]


def test_the_newest_migration_is_the_one_that_the_program_knows() -> None:
    assert ScriptDirectory.from_config(_config()).get_current_head() == REVISION


@pytest.mark.parametrize(
    ("found", "readable_from", "is_usable"),
    [
        (None, None, False),
        ("0001", None, False),
        (REVISION, REVISION, True),
        ("9000", REVISION, True),
        ("9000", "8000", False),
        ("9000", None, False),
    ],
)
def test_which_schemas_can_be_used(found: str | None, readable_from: str | None, is_usable: bool) -> None:
    try:
        require_revision(found, readable_from)
    except SchemaMismatch:
        assert not is_usable
    else:
        assert is_usable


def pretend(database_url: str, revision: str, readable_from: str) -> None:
    with psycopg.connect(database_url) as connection:
        connection.execute("UPDATE alembic_version SET version_num = %s", [revision])
        connection.execute("UPDATE schema_compatibility SET readable_from = %s", [readable_from])


async def opens(database_url: str) -> bool:
    store = PostgresStore(database_url)
    try:
        await store.open()
    except SchemaMismatch:
        return False
    finally:
        await store.close()
    return True


async def test_an_upgrade_can_roll(database_url: str) -> None:
    pretend(database_url, "9000", REVISION)
    assert await opens(database_url)
    assert migrate(database_url) == ("9000", "9000")


async def test_a_schema_of_another_time_is_refused(database_url: str) -> None:
    pretend(database_url, "9000", "9000")
    assert not await opens(database_url)
    with pytest.raises(SchemaMismatch, match="needs a newer version"):
        migrate(database_url)
    pretend(database_url, "0017", "0017")
    assert not await opens(database_url)


async def test_web_refuses_to_start(database_url: str, tmp_path: Path) -> None:
    pretend(database_url, "0017", "0017")
    app = make_app(Settings(data=tmp_path), Urls(database_url, "redis://127.0.0.1:1"))
    with pytest.raises(SchemaMismatch, match="run: dispatcher migrate"):
        async with app.router.lifespan_context(app):
            pass


def test_a_worker_refuses_to_start(database_url: str, tmp_path: Path) -> None:
    pretend(database_url, "0017", "0017")
    urls = {"DISPATCHER_DATABASE_URL": database_url, "DISPATCHER_REDIS_URL": "redis://127.0.0.1:1"}
    done = subprocess.run(
        [sys.executable, "-m", "celery", "-A", "tasks.app", "worker", "-Q", "io", "-c", "1"],
        env={**os.environ, **urls, "DISPATCHER_DATA": str(tmp_path)},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert "worker refuses to start" in done.stdout
    assert "run: dispatcher migrate" in done.stdout
