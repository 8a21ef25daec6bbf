"""Loads the named statements of `sql/*.sql`: '-- name --' on a line of its own, then the statement."""

import re
from functools import lru_cache
from pathlib import Path

from psycopg import sql

_WORD = re.compile(r"\{(\w+)\}")
_NAME = re.compile(r"^-- (\S.*) --$", re.MULTILINE)
_FOLDER = Path(__file__).parent / "sql"


@lru_cache(maxsize=32)
def statements(aggregate: str) -> dict[str, str]:
    """The statements of one file by name, in the order of the file."""
    parts = _NAME.split((_FOLDER / f"{aggregate}.sql").read_text())
    return {name: body.strip().rstrip(";") for name, body in zip(parts[1::2], parts[2::2], strict=True)}


def statement(name: str) -> str:
    """One statement by 'aggregate.name'."""
    aggregate, _, short = name.partition(".")
    return statements(aggregate)[short]


def composed(name: str, **words: sql.Composable) -> sql.Composed:
    """A statement whose {words} name tables or columns. Raises KeyError for a word that is not given."""
    pieces = _WORD.split(statement(name))
    return sql.Composed([words[piece] if i % 2 else sql.SQL(piece) for i, piece in enumerate(pieces)])
