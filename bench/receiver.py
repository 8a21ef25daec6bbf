"""Takes postbacks and does nothing with them: python -m bench.receiver PORT. What no dispatcher can be faster than."""

import asyncio
import json
import sys
import time

from bench.wire import listen


class Receiver:
    """How many came, and when the last one did."""

    def __init__(self) -> None:
        self._received, self._last_at = 0, 0.0

    def answer(self, method: str, path: str, body: bytes) -> bytes:
        if path == "/stats":
            return json.dumps({"received": self._received, "last_at": self._last_at}).encode()
        self._received += 1
        self._last_at = time.time()
        return b"{}"


async def main(port: int) -> None:
    """Serve until the process is stopped."""
    async with await listen(port, Receiver().answer) as server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
