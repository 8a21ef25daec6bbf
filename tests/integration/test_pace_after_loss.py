"""Many clients book at once while a real server loses its memory, in whole or in part: no second gets fuller."""

import asyncio
import itertools
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
from redis.asyncio import Redis

from dispatcher.domain.ledger import worst_second
from dispatcher.domain.pacing import FIRST_AFTER_LOSS_S, LATE_S, RateLimit, slots_to_reserve
from dispatcher.embedded import Servers
from dispatcher.embedded.process import pongs, wait
from dispatcher.embedded.servers import valkey_binary
from dispatcher.limits import RedisLimiter

RATE = 50.0
CLIENTS = 8
LASTS_S = 7.0
Fault = Callable[[], Awaitable[object]]


class Valkey:
    """A server of a test's own, that can be killed and started from whatever lies in its folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.url = f"unix://{folder}/s?db=0"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [str(valkey_binary()), "--port", "0", "--unixsocket", f"{self.folder}/s", "--save", ""]
        self._process = subprocess.Popen(
            [*command, "--dir", str(self.folder), "--logfile", "valkey.log"], stdout=subprocess.DEVNULL
        )
        assert wait(lambda: pongs(self.url), self._process, 20)

    async def save(self) -> None:
        async with Redis.from_url(self.url) as redis:
            await redis.save()

    def kill(self) -> None:
        if self._process:
            self._process.kill()
            self._process.wait()


@pytest.fixture
async def valkey() -> AsyncIterator[Valkey]:
    with tempfile.TemporaryDirectory(prefix="dsp-") as folder:  # short: the path of a socket ends at 107 bytes
        server = Valkey(Path(folder))
        server.start()
        yield server
        server.kill()


async def booked(url: str, faults: dict[float, Fault]) -> list[float]:
    """All instants that the clients were given, while faults happen at their times."""
    clients = [RedisLimiter(url) for _ in range(CLIENTS)]
    await clients[0].open()
    await asyncio.sleep(FIRST_AFTER_LOSS_S)
    begin, instants = time.monotonic(), list[float]()

    async def shift(client: RedisLimiter, turn: int) -> None:
        while time.monotonic() < begin + LASTS_S:
            # the odd ones book as requests do that are no calls: as far ahead as there is
            reservation = await client.reserve(
                [RateLimit("account:1", 1 / RATE)], slots_to_reserve(RATE), 3.0 if turn % 2 else 2.0
            )
            now = time.monotonic()
            instants.extend(now + delay for delay in reservation.delays_s)
            await asyncio.sleep(0.02)

    async def fate() -> None:
        for at, fault in faults.items():
            await asyncio.sleep(begin + at - time.monotonic())
            await fault()

    try:
        await asyncio.gather(fate(), *itertools.starmap(shift, zip(clients, itertools.count(), strict=False)))
    finally:
        for client in clients:
            await client.close()
    return sorted(instants)


def check(instants: list[float]) -> None:
    """The limit is kept over all instants, and the loss cost no more than it had to."""
    assert worst_second(instants) <= RATE + 1
    gaps = [after - before for before, after in itertools.pairwise(instants)]
    # each client reckons our clock anew after a loss: a slot may seem nearer to the one before by a part of LATE_S
    assert min(gaps) > 1 / RATE - LATE_S / 2
    assert max(gaps) < FIRST_AFTER_LOSS_S + 1 / RATE + 0.5
    assert instants[-1] - instants[0] > LASTS_S


async def test_everything_is_forgotten(servers: Servers) -> None:
    async with Redis.from_url(servers.redis_url) as redis:
        await redis.flushall()
        check(await booked(servers.redis_url, {3.0: redis.flushall}))


async def test_an_older_memory_comes_back(valkey: Valkey) -> None:
    """A dump, more bookings, kill -9, and a start from that dump."""

    async def crash() -> None:
        valkey.kill()
        await asyncio.to_thread(valkey.start)

    check(await booked(valkey.url, {1.0: valkey.save, 3.0: crash}))


async def test_a_replica_that_was_behind_takes_over(valkey: Valkey) -> None:
    """It runs already: nothing is loaded, and only its run is another."""
    with tempfile.TemporaryDirectory(prefix="dsp-") as folder:
        replica, socket = Valkey(Path(folder)), valkey.folder / "s"

        async def copy() -> None:
            await valkey.save()
            (replica.folder / "dump.rdb").write_bytes((valkey.folder / "dump.rdb").read_bytes())
            await asyncio.to_thread(replica.start)

        async def take_over() -> None:
            valkey.kill()
            socket.unlink(missing_ok=True)
            socket.symlink_to(replica.folder / "s")

        try:
            check(await booked(valkey.url, {1.0: copy, 3.0: take_over}))
        finally:
            replica.kill()
