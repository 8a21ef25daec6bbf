"""python -m dispatcher.simulator callfire --port 8460 --ledger ledger.jsonl"""

import argparse
import asyncio
import dataclasses
import itertools
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

from dispatcher.simulator.callfire import CallFire
from dispatcher.simulator.callfire11 import BASE, CallFire11
from dispatcher.simulator.fortytwo import Fortytwo
from dispatcher.simulator.ledger import Ledger
from dispatcher.simulator.line import Line, Timing
from dispatcher.simulator.phonon import Phonon
from dispatcher.simulator.script import Habits, Scenario, Scripts, read_scenario
from dispatcher.simulator.server import Handler, Request, Response, serve

PROVIDERS = ("callfire", "fortytwo", "phonon")


def main() -> None:
    """Serve until TERM."""
    try:
        asyncio.run(run(read_arguments(sys.argv[1:])))
    except (OSError, ValueError) as error:
        sys.exit(f"error: {error}")


def read_arguments(words: list[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="dispatcher.simulator", description="Providers, played locally.")
    parser.add_argument("provider", choices=[*PROVIDERS, "all"])
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8460)
    parser.add_argument("--ledger", type=Path, required=True, help="file that every accepted dial is written to")
    parser.add_argument("--credentials", default="simulator:simulator", help="user:password, token or security-id")
    parser.add_argument("--scenario", type=Path, help="TOML: what happens to which numbers, and how fast")
    parser.add_argument("--callback", help="where Phonon posts its news: what one tells their portal")
    for item in dataclasses.fields(Timing):
        parser.add_argument(f"--{item.name}", type=float, help=f"seconds; default {item.default}")
    return parser.parse_args(words)


class Exchange:
    """What answers requests: one provider, or all of them by their paths. Raises ValueError."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        secret = _checked(arguments)
        scenario = read_scenario(arguments.scenario) if arguments.scenario else Scenario(Scripts(), {}, Habits())
        seconds = dict(scenario.seconds)
        known = {item.name for item in dataclasses.fields(Timing)}
        if unknown := set(seconds) - known:
            has = ", ".join(sorted(known))
            raise ValueError(f"{arguments.scenario}: [timing] has no '{min(unknown)}'; it has {has}")
        seconds |= {name: value for name in known if (value := getattr(arguments, name)) is not None}
        self._ledger = Ledger(arguments.ledger)
        ids = itertools.count(time.time_ns() // 1_000)  # never those of an earlier run

        def line(own_retries: bool = True) -> Line:
            return Line(self._ledger, Timing(**seconds), scenario, ids, own_retries=own_retries)

        phonon = Phonon(line(), secret, arguments.callback).handle
        fortytwo = Fortytwo(line(own_retries=False), secret).handle
        listed: set[str] = set()
        callfire: list[tuple[str, Handler]] = [
            (BASE, CallFire11(line(), self._ledger, secret, listed).handle),
            ("/", CallFire(line(), self._ledger, secret, listed).handle),
        ]
        doors: dict[str, list[tuple[str, Handler]]] = {
            "callfire": callfire,
            "fortytwo": [("/", fortytwo)],
            "phonon": [("/", phonon)],
            "all": [("/1/", fortytwo), *((p, phonon) for p in ("/kairos-apis", "/bulk", "/portal")), *callfire],
        }
        self._doors = doors[arguments.provider]

    async def handle(self, request: Request) -> Response:
        """One request."""
        if request.path == "/ledger":
            return Response(200, self._ledger.read(), {"Content-Type": "application/x-ndjson"})
        door = next(door for prefix, door in self._doors if request.path.startswith(prefix))
        return await door(request)

    def close(self) -> None:
        """Keep what was written."""
        self._ledger.close()


def _checked(arguments: argparse.Namespace) -> str:
    """The credentials; raises ValueError for what a client could never send."""
    secret, callback = arguments.credentials, arguments.callback
    if arguments.provider in ("callfire", "all") and not all(secret.partition(":")):
        raise ValueError("--credentials of CallFire are user:password, as an account's are")
    if callback is not None and not (callback.startswith(("http://", "https://")) and urlsplit(callback).hostname):
        raise ValueError("--callback must be an http address: the one that 'dispatcher account show' prints")
    return str(secret)


async def run(arguments: argparse.Namespace, ready: Callable[[], None] = lambda: None) -> None:
    """Serve until TERM. Raises OSError, ValueError."""
    exchange = Exchange(arguments)
    server = await serve(exchange.handle, arguments.host, arguments.port)
    ready()
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    await stopped.wait()
    server.close()
    exchange.close()


if __name__ == "__main__":
    main()
