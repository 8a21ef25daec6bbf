"""dispatcher simulator PROVIDER: a provider played locally, for people who integrate."""

import asyncio
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from dispatcher.cli.console import out
from dispatcher.cli.session import settings
from dispatcher.domain.errors import ServerError, UsageError
from dispatcher.simulator.__main__ import read_arguments, run


class Played(StrEnum):
    """Who can be played."""

    CALLFIRE = "callfire"
    FORTYTWO = "fortytwo"
    PHONON = "phonon"
    ALL = "all"


_ADDRESSES = {
    Played.CALLFIRE: ("/v2", "/api/1.1/rest"),
    Played.FORTYTWO: ("",),
    Played.PHONON: ("", "/bulk"),
    Played.ALL: ("/v2", "/api/1.1/rest", "", "/bulk"),
}


def simulator(
    provider: Annotated[Played, typer.Argument(help="Who is played.")],
    scenario: Annotated[
        Path | None,
        typer.Option(help="TOML: timing, and what happens to which last digits; see docs/providers.md."),
    ] = None,
    port: Annotated[int, typer.Option(min=1, max=65535)] = 8460,
    ledger: Annotated[
        Path | None, typer.Option(help="Every dial is written here; default: in the data folder.")
    ] = None,
    credentials: Annotated[str, typer.Option(help="user:password, token or security-id.")] = "simulator:simulator",
    callback: Annotated[str | None, typer.Option(help="Phonon: where its portal was told to post.")] = None,
) -> None:
    """Play a provider until Ctrl-C. The last two digits of a number say what happens to it; nobody is rung."""
    written = ledger or settings().data_folder / "simulator-ledger.jsonl"
    words = [provider, "--port", str(port), "--ledger", str(written), "--credentials", credentials]
    words += ["--scenario", str(scenario)] if scenario else []
    words += ["--callback", callback] if callback else []
    try:
        written.parent.mkdir(parents=True, exist_ok=True)
        asyncio.run(run(read_arguments(words), lambda: _respond(provider, port, written)))
    except ValueError as error:
        raise UsageError(str(error)) from None
    except OSError as error:
        raise ServerError(f"the simulator cannot start: {error.strerror}; choose another --port or --ledger") from None


def _respond(provider: Played, port: int, written: Path) -> None:
    for path in _ADDRESSES[provider]:
        out.print(f"{provider} is played at http://127.0.0.1:{port}{path}", soft_wrap=True)
    out.print(f"what it dials is written to {written} and shown at http://127.0.0.1:{port}/ledger", soft_wrap=True)
