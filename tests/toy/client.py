"""Toy: rings a list of numbers; news by postback and by asking."""

from collections.abc import Sequence

from dispatcher.domain.attempt import Call, OpenCall
from dispatcher.domain.capability import CallbackAuth, Capabilities, Dedupe, LookupBy
from dispatcher.domain.reading import Reading
from dispatcher.domain.results import Outcome
from dispatcher.providers.adapter import NOT_FOUND, Adapter, MaySend, Opening, seen_outcome
from dispatcher.providers.http import Answer
from dispatcher.providers.kit import Kit
from tests.toy.wire import Reader, request


class Toy(Adapter):
    """The Provider port for Toy."""

    def __init__(self, opening: Opening) -> None:
        super().__init__(opening, {"X-Toy-Token": opening.secret}, Reader())

    async def post(self, calls: Sequence[Call], may_send: MaySend) -> Reading | Outcome:
        return self.read_answer(await self._lanes.send("POST", "/rings", json=request(calls), may_send=may_send))

    async def ask(self, calls: Sequence[OpenCall], may_ask: MaySend) -> dict[str, Outcome]:
        (call,) = calls
        reading = await self.get(f"/rings/{call.key}", may_send=may_ask)
        if reading is None:
            return {}
        return {call.key: seen_outcome(reading.sightings[0]) if reading.sightings else NOT_FOUND}

    async def knock(self) -> Answer | Outcome:
        return await self._asking.send("GET", "/me")


KIT = Kit(
    base_url=lambda options: "https://toy.example",
    open=Toy,
    reader=lambda options: Reader(),
    capabilities=lambda options: Capabilities(
        dedupe=Dedupe.NONE,
        lookup=LookupBy.OUR_KEY,
        own_retries=False,
        callback_auth=CallbackAuth.SIGNATURE,
        most_calls=10,
    ),
    secret_form="token",
)
