"""What no dispatcher can be faster than: the same client and the same postbacks, and nothing in between."""

import asyncio
import time
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing import get_context

from bench.rig import PATIENCE_S, WORKERS, Peer, Void, calls_for, numbers, peer
from bench.sink import is_busy
from dispatcher.domain.attempt import Call
from dispatcher.providers.adapter import AdapterConfig
from dispatcher.providers.callfire.client import CallFire

CONNECTIONS = 64
"""As many as a shift has."""


@dataclass(frozen=True)
class Limit:
    """A run of it."""

    calls: int
    seconds: float

    @property
    def rate(self) -> float:
        return self.calls / self.seconds


def limit(calls: int) -> Limit:
    """As many processes as there are dial workers, until the last postback has been received. Raises Void."""
    wanted = numbers(calls)
    with peer("bench.sink") as sink, peer("bench.receiver") as receiver:
        sink.report_to(f"{receiver.url}/hook")
        context = get_context("spawn")
        shares = [wanted[i::WORKERS] for i in range(WORKERS)]
        processes = [context.Process(target=_loop, args=(f"{sink.url}/v2", share), daemon=True) for share in shares]
        try:
            for process in processes:
                process.start()
            expected = calls_for(wanted)
            last_at = _wait_for(receiver, expected)
            return Limit(expected, last_at - sink.called_at()[0])
        finally:
            for process in processes:
                process.terminate()
                process.join()


def _wait_for(receiver: Peer, postbacks: int) -> float:
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        stats = receiver.stats()
        if stats["received"] >= postbacks:
            return float(stats["last_at"])
        time.sleep(0.5)
    raise Void(f"limit: {stats['received']} of {postbacks} postbacks came within {PATIENCE_S} s")


def _loop(address: str, wanted: list[int]) -> None:
    asyncio.run(_call_all(address, wanted))


async def _at_once() -> bool:
    return True


async def _call_all(address: str, wanted: list[int]) -> None:
    client = CallFire(
        AdapterConfig(base_url=address, secret="bench:bench", options={}, callback_url=str, connections=CONNECTIONS)
    )
    # a number is BUSY by what it is, so the redials need nobody to hear of them
    calls = iter([*wanted, *filter(is_busy, wanted)])
    await asyncio.gather(*(_call_some(client, calls) for _ in range(CONNECTIONS)))
    await client.close()


async def _call_some(client: CallFire, numbers_left: Iterator[int]) -> None:
    for number in numbers_left:
        call = Call(key=f"k{number:012d}", to=f"+{number}", caller_id="+12025550199", text="Hello")
        await client.submit([call], _at_once)
