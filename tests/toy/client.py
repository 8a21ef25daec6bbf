"""Toy: rings a list of numbers; news by postback and by asking."""

from collections.abc import Sequence

from dispatcher.domain.attempt import Call, OpenCall
from dispatcher.domain.capability import CallbackAuth, Capabilities, Dedupe, LookupBy
from dispatcher.domain.provider_body import ParsedBody
from dispatcher.domain.results import Outcome
from dispatcher.providers.adapter import NOT_FOUND, Adapter, AdapterConfig, MaySend, seen_outcome
from dispatcher.providers.http import Answer
from dispatcher.providers.spec import ProviderSpec
from tests.toy.wire import Reader, request


class Toy(Adapter):
    """The Provider port for Toy."""

    def __init__(self, config: AdapterConfig) -> None:
        super().__init__(config, {"X-Toy-Token": config.secret}, Reader())

    async def post(self, calls: Sequence[Call], may_send: MaySend) -> ParsedBody | Outcome:
        return self.read_answer(await self._pool.send("POST", "/rings", json=request(calls), may_send=may_send))

    async def ask(self, calls: Sequence[OpenCall], may_ask: MaySend) -> dict[str, Outcome]:
        (call,) = calls
        parsed = await self.get(f"/rings/{call.key}", may_send=may_ask)
        if parsed is None:
            return {}
        return {call.key: seen_outcome(parsed.reports[0]) if parsed.reports else NOT_FOUND}

    async def probe_request(self) -> Answer | Outcome:
        return await self._question_pool.send("GET", "/me")


SPEC = ProviderSpec(
    base_url=lambda options: "https://toy.example",
    open=Toy,
    parser=lambda options: Reader(),
    capabilities=lambda options: Capabilities(
        dedupe=Dedupe.NONE,
        lookup=LookupBy.OUR_KEY,
        own_retries=False,
        callback_auth=CallbackAuth.SIGNATURE,
        most_calls=10,
    ),
    secret_form="token",
)
