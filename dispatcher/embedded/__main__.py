"""Keeps the embedded servers running while `up` is: what dies is started again, at the same address."""

import signal
import sys
import threading
from pathlib import Path

from dispatcher.domain.errors import ServerError
from dispatcher.embedded.servers import Embedded

_EVERY_S = 1.0


def watch(folder: Path) -> None:
    """Until TERM, which never comes between a server's start and its note; the servers stay, `down` stops them."""
    ending = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: ending.set())
    embedded = Embedded(folder)
    while not ending.wait(_EVERY_S):
        try:
            embedded.start()
        except ServerError as error:
            print(error, file=sys.stderr, flush=True)  # noqa: T201


if __name__ == "__main__":
    watch(Path(sys.argv[1]))
