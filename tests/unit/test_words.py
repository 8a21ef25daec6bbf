"""One word, one meaning: class names are used once, and what docs/glossary.md has replaced does not come back."""

import ast
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.test_rules import ROOT, SOURCES, SQL

SIMULATED = {"CallFire", "CallFire11", "Fortytwo", "Phonon"}
"""Each provider has an adapter and a simulator."""
GLOSSARY = (ROOT / "docs/glossary.md").read_text()
RETIRED = set(re.findall(r"`(\w+)`", GLOSSARY.partition("## Retired")[2]))


def identifiers(path: Path) -> Iterator[str]:
    """Names that the file defines, uses or imports."""
    for node in ast.walk(ast.parse(path.read_text())):
        match node:
            case ast.Name(id=name) | ast.Attribute(attr=name) | ast.arg(arg=name) | ast.keyword(arg=str(name)):
                yield name
            case ast.ClassDef(name=name) | ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                yield name
            case ast.ImportFrom(names=names):
                yield from (alias.name for alias in names)


def test_the_glossary_lists_them() -> None:
    assert {"News", "Sighting", "look_at"} <= RETIRED


def test_every_class_name_is_used_once() -> None:
    nodes = [node for path in SOURCES for node in ast.walk(ast.parse(path.read_text()))]
    counts = Counter(node.name for node in nodes if isinstance(node, ast.ClassDef))
    assert {name for name, n in counts.items() if n > 1} <= SIMULATED


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_retired_identifiers_stay_away(path: Path) -> None:
    assert set(identifiers(path)) & RETIRED == set()


@pytest.mark.parametrize("path", SQL, ids=lambda p: p.name)
def test_retired_columns_stay_away(path: Path) -> None:
    code = re.sub(r"--.*", "", path.read_text())
    assert set(re.findall(r"\w+", code)) & RETIRED == set()
