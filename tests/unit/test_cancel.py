"""Who asks a provider to stop, and what becomes of its answer."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, cast

import pytest

from dispatcher.domain.account import Account
from dispatcher.domain.errors import UsageError
from dispatcher.domain.pacing import Booking
from dispatcher.flow.cancel import cancel
from dispatcher.ports import Services

ACCOUNT = cast(Account, SimpleNamespace(id=1, rate=10.0))


@dataclass
class World:
    """A store, a limiter and a provider that note what they are told."""

    takes: frozenset[str] = frozenset()
    able: bool = True
    slots: int = 5
    told: list[Any] = field(default_factory=list)

    async def reserve(self, limits: Sequence[Any], n: int, horizon_s: float) -> Booking:
        return cast(Booking, SimpleNamespace(delays_s=[0.0] * min(n, self.slots)))

    async def take_cancels(self, account_id: int, n: int) -> list[str]:
        return ["a", "b"][:n]

    async def forget_cancels(self, account_id: int) -> None:
        self.told.append("forget")

    async def stopped(self, account_id: int, requests: Sequence[str]) -> None:
        self.told.append(list(requests))

    async def cancel(self, requests: Sequence[str]) -> frozenset[str]:
        self.told.append(f"asked {' '.join(requests)}")
        return self.takes

    def capabilities(self, account: Account) -> Any:
        return SimpleNamespace(cancel=self.able)

    def of(self, account: Account) -> Any:
        if not self.takes:
            raise UsageError("no credentials")
        return self

    @property
    def services(self) -> Services:
        return cast(Services, SimpleNamespace(store=self, limiter=self, providers=self))


@pytest.mark.parametrize(
    ("world", "told"),
    [
        (World(frozenset("ab")), ["asked a b", ["a", "b"]]),
        (World(frozenset("b")), ["asked a b", ["b"]]),
        (World(frozenset("a"), slots=1), ["asked a", ["a"]]),
        (World(frozenset("a"), slots=0), []),
        (World(frozenset("a"), able=False), ["forget"]),
        (World(), []),
    ],
    ids=["all", "some", "few slots", "no slot", "cannot", "no credentials"],
)
async def test_what_is_asked_and_noted(world: World, told: list[Any]) -> None:
    await cancel(ACCOUNT, world.services)
    assert world.told == told
