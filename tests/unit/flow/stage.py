"""An account, its campaigns, and a lane that dials for it under a virtual clock."""

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine
from typing import Any

from dispatcher.domain.account import Account
from dispatcher.domain.attempt import Shift
from dispatcher.domain.campaign import Campaign
from dispatcher.domain.capability import CallbackAuth, Capabilities, Dedupe, LookupBy
from dispatcher.domain.errors import ServerError, UsageError
from dispatcher.domain.pacing import RateLimit, Reservation, reserve
from dispatcher.domain.permitting import PermitRequest, Permits
from dispatcher.domain.results import Disposition, Outcome, Result
from dispatcher.flow.account_dialer import AccountDialer
from dispatcher.flow.settle import Recorder
from dispatcher.ports import ShiftSettings
from tests.factories import LEASE, make_account, make_campaign, number
from tests.memory import MemoryStore
from tests.unit.flow.virtual import Clock, Ids, Line, Rng, Tasks, instant, now, services

REACHED = Outcome(disposition=Disposition.FINAL_SUCCESS, result=Result.LA)
EACH_ALONE = Capabilities(
    dedupe=Dedupe.NONE, lookup=LookupBy.OUR_KEY, own_retries=False, callback_auth=CallbackAuth.ADDRESS, most_calls=10
)


class Store(MemoryStore):
    """In memory, and in the way when told to be."""

    def __init__(self) -> None:
        super().__init__(clock=instant)
        self.permits_seen: list[tuple[float, PermitRequest, Permits | None]] = []
        self.permit_takes_s = 0.0
        self.lost_permits = 0
        """So many of the next answers are lost: half of them after the commit."""
        self.lost_voids = 0
        self.voids = 0

    async def permit(self, ask: PermitRequest) -> Permits:
        await asyncio.sleep(self.permit_takes_s)
        lost = self.lost_permits > 0
        self.lost_permits -= lost
        permits = await super().permit(ask) if self.lost_permits % 2 == 0 else None
        self.permits_seen.append((now(), ask, permits))
        if lost or permits is None:
            raise ServerError("the connection was closed")
        return permits

    async def void_permits(self, shift: Shift) -> Shift | None:
        self.voids += 1
        if self.voids <= self.lost_voids:
            raise ServerError("away")
        return await super().void_permits(shift)

    def rows_by(self, campaign: Campaign) -> Counter[str]:
        return Counter(f"{row.state} {row.result or row.reason or ''}".strip() for row in self._mine(campaign.id))


class Stage:
    """An account, its campaigns, and a lane that dials for it."""

    def __init__(self, **line: Any) -> None:
        self.store = Store()
        self.line = Line(**{"takes_s": 0.02, **line})
        self.refuses: Reservation | None = None
        self.everyone = 1
        """So many dial for the account, all as much as we do: of as many slots, one is ours."""
        self.booked: list[float] = []
        self.limits: dict[str, RateLimit] = {}
        self.stops_at = float("inf")
        self.has_credentials = True
        self.services = services(
            store=self.store,
            limiter=self,
            providers=self,
            clock=Clock(),
            ids=Ids(),
            rng=Rng(),
            tasks=Tasks(),
            stopping=lambda: now() >= self.stops_at,
            shift=ShiftSettings(),
        )

    def of(self, account: Account) -> Line:
        if not self.has_credentials:
            raise UsageError("no credentials")
        return self.line

    def capabilities(self, account: Account) -> Capabilities:
        return EACH_ALONE

    async def reserve(self, limits: list[RateLimit], n: int, horizon_s: float, lead_s: float = 0) -> Reservation:
        if self.refuses:
            return self.refuses
        known = [
            RateLimit(x.name, x.interval_s * self.everyone, (self.limits.get(x.name) or x).next_at) for x in limits
        ]
        reservation, moved = reserve(known, n, horizon_s, now(), lead_s)
        self.limits |= {x.name: x for x in moved}
        self.booked += [now() + delay for delay in reservation.delays_s]
        return reservation

    async def account(self, cps: float = 100.0, **changes: Any) -> Account:
        return await make_account(self.store, cps=cps, headroom=1.0, in_flight=5000, shifts=2, **changes)

    async def campaign(self, account: Account, rows: range, **changes: Any) -> Campaign:
        changes = {"cps": 1000, "in_flight": 5000, **changes}
        return await make_campaign(self.store, [number(i) for i in rows], account, **changes)

    async def dial(self, account: Account, seconds: float = 20.0, shift: Shift | None = None) -> bool:
        """A shift, to its end and until everything is written."""
        shift = shift or await self.store.take_shift(account.id, "w", LEASE)
        assert shift
        recorder = Recorder(account.id, self.services)
        writing = asyncio.ensure_future(recorder.run())
        dialer = AccountDialer(shift, now() + seconds, recorder, self.services)
        try:
            return await dialer.run()
        finally:
            await dialer.drain()
            recorder.close()
            await writing

    @property
    def granted(self) -> list[str]:
        return [row.key for _, _, permits in self.store.permits_seen if permits for row in permits.granted]

    @property
    def not_sent(self) -> int:
        """Calls that are permitted now and have not left."""
        return len(self.granted) - len(self.line.keys)


async def watch(look: Callable[[], float], until: Coroutine[Any, Any, Any]) -> float:
    """The most that was seen while something goes on."""
    most, going = 0.0, asyncio.ensure_future(until)
    while not going.done():
        most = max(most, look())
        await asyncio.sleep(0.001)
    await going
    return most
