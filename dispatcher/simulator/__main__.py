"""python -m dispatcher.simulator callfire --port 8460 --ledger ledger.jsonl"""

import argparse
import asyncio
import dataclasses
import signal
from pathlib import Path

from dispatcher.simulator.callfire import CallFire, Timing
from dispatcher.simulator.ledger import Ledger
from dispatcher.simulator.server import serve


def main() -> None:
    """Serve until TERM."""
    parser = argparse.ArgumentParser(prog="dispatcher.simulator", description="A provider, played locally.")
    parser.add_argument("provider", choices=["callfire"])
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8460)
    parser.add_argument("--ledger", type=Path, required=True, help="file that every accepted dial is written to")
    parser.add_argument("--credentials", default="simulator:simulator", help="user:password")
    for item in dataclasses.fields(Timing):
        parser.add_argument(f"--{item.name}", type=float, default=item.default, help="seconds")
    asyncio.run(run(parser.parse_args()))


async def run(arguments: argparse.Namespace) -> None:
    timing = Timing(**{item.name: getattr(arguments, item.name) for item in dataclasses.fields(Timing)})
    provider = CallFire(Ledger(arguments.ledger), arguments.credentials, timing)
    server = await serve(provider.handle, arguments.host, arguments.port)
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    await stopped.wait()
    server.close()


if __name__ == "__main__":
    main()
