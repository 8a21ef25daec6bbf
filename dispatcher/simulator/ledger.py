"""What a provider truly dialled: one JSON line each, on disk before anybody is told."""

import asyncio
import json
import os
from pathlib import Path
from typing import Any


class Ledger:
    """Append-only and fsynced in groups. The oracle of every test: never our own tables."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("ab")
        self._path = path
        self._kept = path.with_suffix(".webhooks.json")
        self._waiting: list[tuple[bytes, asyncio.Future[None]]] = []
        self._flushing: asyncio.Task[None] | None = None

    async def write(self, *, key: str, number: str, at: float, result: str, provider_retry: bool) -> None:
        """Returns when the line is on disk."""
        line = {"key": key, "number": number, "at": at, "result": result, "provider_retry": provider_retry}
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((json.dumps(line).encode() + b"\n", done))
        if self._flushing is None:
            self._flushing = asyncio.create_task(self._flush())
        await done

    async def _flush(self) -> None:
        while self._waiting:
            group, self._waiting = self._waiting, []
            self._file.write(b"".join(line for line, _ in group))
            self._file.flush()
            await asyncio.to_thread(os.fsync, self._file.fileno())
            for _, done in group:
                done.set_result(None)
        self._flushing = None

    def subscriptions(self, provider: str) -> dict[int, dict[str, Any]]:
        """Who wants to hear of calls: a provider that was restarted still knows."""
        return {int(k): v for k, v in self._all_kept().get(provider, {}).items()}

    def keep(self, provider: str, subscriptions: dict[int, dict[str, Any]]) -> None:
        """Remember them."""
        self._kept.write_text(json.dumps({**self._all_kept(), provider: subscriptions}))

    def _all_kept(self) -> dict[str, Any]:
        return dict(json.loads(self._kept.read_text())) if self._kept.exists() else {}

    def close(self) -> None:
        self._file.close()

    def read(self) -> bytes:
        """All lines."""
        return self._path.read_bytes()
