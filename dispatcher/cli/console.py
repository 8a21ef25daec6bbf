"""The terminal, and JSON for programs."""

import json
import sys
from datetime import datetime
from typing import Any

from rich.console import Console

_PIPE_WIDTH = 250
"""Nobody reads a pipe's margin: what goes into a file or a program is not wrapped."""


def _console(stderr: bool) -> Console:
    # no markup: names of people's campaigns and files may hold brackets
    console = Console(stderr=stderr, highlight=False, markup=False, soft_wrap=False)
    return console if console.is_terminal else Console(stderr=stderr, highlight=False, markup=False, width=_PIPE_WIDTH)


out = _console(stderr=False)
err = _console(stderr=True)


def as_json(document: Any) -> None:
    """One JSON document on stdout."""
    sys.stdout.write(json.dumps(document, default=_as_text, indent=2) + "\n")


def _as_text(value: Any) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value)
