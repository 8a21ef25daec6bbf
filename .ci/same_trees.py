"""Shows that between two commits nothing but names has changed: `python .ci/same_trees.py BEFORE AFTER`.

The syntax trees of each file must have one shape, and where a name differs the pair must stand in docs/renames.md.
Imports and lists of names, which a formatter sorts, are compared without their order.
"""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path

ROOMS = ("bench", "config", "dispatcher", "tasks", "tests")
TABLE = Path(__file__).parents[1] / "docs" / "renames.md"
SORTED = {"__all__", "__slots__"}


def git(*words: str) -> str:
    return subprocess.run(["git", *words], capture_output=True, text=True, check=True).stdout


def atoms(tree: ast.AST) -> Iterator[str]:
    """The tree as a line of kinds, names and constants, without imports."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom | ast.alias):
            continue
        yield type(node).__name__
        is_sorted = isinstance(node, ast.Assign) and {ast.unparse(t) for t in node.targets} & SORTED
        for name, value in ast.iter_fields(node):
            if is_sorted and name == "value":
                continue
            for item in value if isinstance(value, list) else [value]:
                if not isinstance(item, ast.AST):
                    yield f"{name} {item!r}"
        if is_sorted:
            node.value = ast.Constant(None)


def differing(before: str, after: str) -> Iterator[tuple[str, str]]:
    """Names that differ, in pairs; an empty name where the shape does."""
    for old, new in zip_longest(atoms(ast.parse(before)), atoms(ast.parse(after)), fillvalue=""):
        if old != new:
            words = re.findall(r"\w+", old), re.findall(r"\w+", new)
            if len(words[0]) != len(words[1]) or words[0][:1] != words[1][:1]:
                yield old, ""
            yield from ((a, b) for a, b in zip(*words, strict=False) if a != b)


def main(before: str, after: str) -> int:
    allowed = set(re.findall(r"^\| `(\w+)` \| `(\w+)` \|", TABLE.read_text(), re.MULTILINE))
    moved = dict(re.findall(r"^R\d+\t(\S+)\t(\S+)$", git("diff", "-M50", "--name-status", before, after), re.MULTILINE))
    files = [f for f in git("ls-tree", "-r", "--name-only", before, *ROOMS).split() if f.endswith(".py")]
    wrong = 0
    for file in files:
        found = set(differing(git("show", f"{before}:{file}"), git("show", f"{after}:{moved.get(file, file)}")))
        for old, new in sorted(found - allowed):
            wrong += 1
            print(f"{file}: {old} -> {new or 'another shape'}")
    print(f"{len(files)} files, {wrong} differences that are not in the table")
    return wrong


if __name__ == "__main__":
    sys.exit(bool(main(*sys.argv[1:])))
