"""Toy, played: rings at once, and tells a moment later."""

import asyncio
import json

from dispatcher.simulator.server import Request, Response, json_response, post


class PlayedToy:
    """Numbers that end in 5 are engaged the first time, those that end in 9 do not exist."""

    def __init__(self) -> None:
        self.rung: list[str] = []
        self.hook = ""
        self.secret = ""
        self._rings: dict[str, dict[str, str]] = {}
        self._telling: set[asyncio.Task[int]] = set()

    async def handle(self, request: Request) -> Response:
        if request.headers.get("x-toy-token") != "simulator:simulator":
            return Response(401)
        if request.method == "POST":
            return json_response({"rings": [self._ring(one) for one in request.json()]})
        if request.path == "/me":
            return json_response({})
        found = self._rings.get(request.path.rpartition("/")[2])
        return json_response({"rings": [found] if found else []})

    def _ring(self, wanted: dict[str, str]) -> dict[str, str]:
        ring = {"ticket": f"t-{wanted['ref']}", "ref": wanted["ref"], "to": wanted["to"].lstrip("+"), "how": "queued"}
        if wanted["to"].endswith("9"):
            return {**ring, "how": "no such number"}
        busy = wanted["to"].endswith("5") and wanted["to"] not in self.rung
        self.rung.append(wanted["to"])
        self._rings[wanted["ref"]] = {**ring, "how": "engaged" if busy else "picked up"}
        body = json.dumps({"rings": [self._rings[wanted["ref"]]]}).encode()
        headers = {"Content-Type": "application/json", "X-Toy": self.secret}
        task = asyncio.create_task(post(self.hook, body, headers))
        self._telling.add(task)
        task.add_done_callback(self._telling.discard)
        return ring
