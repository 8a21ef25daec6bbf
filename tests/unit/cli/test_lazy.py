"""A command imports what it needs when it is typed, and the list of commands nothing of it."""

import subprocess
import sys

import pytest

from dispatcher.cli.lazy import LazyCommand
from dispatcher.cli.main import COMMANDS

HEAVY = {"alembic", "celery", "sqlalchemy", "fastapi", "phonenumbers", "psycopg", "httpx", "aiohttp"}
SHOW = "import sys; sys.argv = ['dispatcher', *{words!r}]; from dispatcher.cli.main import main\ntry: main()\nexcept SystemExit: pass\nprint(*{{name.partition('.')[0] for name in sys.modules}}, file=sys.stderr)"  # fmt: skip  # noqa: E501


@pytest.mark.parametrize("words", [["--help"], [], ["version"], ["no-such-command"]])
def test_the_list_of_commands_is_light(words: list[str]) -> None:
    code = SHOW.format(words=words)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert set(done.stderr.splitlines()[-1].split()) & HEAVY == set()


@pytest.mark.parametrize("name", COMMANDS)
def test_the_list_says_what_the_command_says(name: str) -> None:
    found = LazyCommand(name, COMMANDS[name]).load()
    assert (found.name or name, " ".join(found.help.split()).startswith(COMMANDS[name].help)) == (name, True)
