"""One account's part of a shift: reserve slots, claim rows for them, permit them in groups, send each at its slot."""

import logging
import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial

from dispatcher.domain.account import Account, AccountState
from dispatcher.domain.attempt import Call, Claimed
from dispatcher.domain.campaign import Policy
from dispatcher.domain.errors import ServerError, UsageError
from dispatcher.domain.pacing import LATE_S, Limit, Slots, Wheel, calls_at_once, slots_to_book
from dispatcher.domain.permitting import HOLDS_ALL
from dispatcher.domain.results import UNREACHABLE, VETOED, Disposition, News, Outcome, Source
from dispatcher.domain.settling import PutBack
from dispatcher.domain.tick import DueWork
from dispatcher.flow.settle import Recorder, stop_account
from dispatcher.ports import Provider, Services, Task

log = logging.getLogger(__name__)

HORIZON_S = 2.0
SPARE = 1.2
"""Rows claimed for each slot in hand: some are refused at the permit, and their slots go to the next ones."""
MOST_SLOTS = 300
GROUP_S = 0.05
"""Attempts whose slots come up within this time are permitted in one transaction."""
PERMIT_LEAD_S = 0.06
FEED_LEAD_S = 0.15
LONGEST_LEAD_S = 0.7
"""Two of them fit into the horizon."""
FIRST_GUESS_S, LEARNT = 0.02, 0.3
"""How long a claim and a permit take: at first, and how much of each new time is believed."""
HOLD_S = 0.25
"""So long a call may wait for a slot with a connection in hand; the server may close one that idles."""
_REST_S = 0.5
_NAP_S = 0.25
FAILING_AFTER = 10
"""So many lost answers in a row stop the account: each one leaves a person in doubt."""
UNREACHABLE_AFTER = 3
"""So many calls in a row that found nobody at the provider's address stop the account: each one costs a permit."""


@dataclass(slots=True)
class Place:
    """What is in hand for one campaign and caller id: slots and rows go together by these."""

    slots: Slots = field(default_factory=Slots)
    """Instants of our monotonic clock."""
    spare: deque[Claimed] = field(default_factory=deque)
    unsent: set[str] = field(default_factory=set)
    """Requests (by their first key) that a permit was asked for: each holds a slot until it is sent or given up."""
    queue: dict[str, None] = field(default_factory=dict)
    """Requests that have a connection and wait for a slot, in the order they came."""

    def free_slots(self, now: float) -> list[float]:
        """Those that nobody is permitted for yet."""
        return self.slots.ahead(now)[len(self.unsent) :]


@dataclass(frozen=True, slots=True)
class Batch:
    """The rows claimed for one booking."""

    work: DueWork
    account: Account
    provider: Provider
    caller_id: str
    place: Place
    rows: deque[Claimed]
    at_once: int
    """Calls that one request, and so one slot, carries."""


class AccountLane:
    """Dials for one account until `end`. Everything it holds when it stops is put back unsent."""

    def __init__(self, account_id: int, owner: str, end: float, recorder: Recorder, services: Services) -> None:
        self._account_id = account_id
        self._owner = owner
        self._end = end
        self._recorder = recorder
        self._services = services
        self._clock = services.clock
        self._wheel = Wheel()
        self._places: dict[tuple[int, str], Place] = {}
        self._rest_until: dict[int, float] = {}
        self._turns: dict[int, int] = {}
        self._running: set[Task] = set()
        self._waiting_to_send = 0
        self._lost = 0
        self._unreachable = 0
        self._claim_s = self._permit_s = FIRST_GUESS_S

    async def run(self) -> None:
        """Feed batches while there is work, then finish what is on the wire."""
        try:
            while not self._is_over() and await self._feed():
                pass
        except UsageError as error:
            log.error("account without credentials", extra={"account_id": self._account_id, "error": str(error)})
            await stop_account(self._account_id, "CREDENTIALS_MISSING", self._services)
        except ServerError:
            log.exception("shift ends early", extra={"account_id": self._account_id})
        finally:
            await self._finish()

    def _is_over(self) -> bool:
        return self._services.stopping() or self._clock.now() >= self._end

    async def _feed(self) -> bool:
        """One batch: False when the account has nothing to do in this shift any more."""
        account = await self._services.store.account(self._account_id)
        if account.state is not AccountState.OPEN or account.is_throttled:
            return False
        provider = self._services.providers.of(account)
        work = await self._choose()
        if work is None:
            return False
        if self._clock.now() < self._rest_until.get(work.campaign_id, 0):
            await self._nap(_NAP_S)
            return True
        return await self._book(work, account, provider)

    async def _choose(self) -> DueWork | None:
        due = await self._services.store.due_work(self._account_id, MOST_SLOTS)
        now = self._clock.now()
        awake = [w for w in due if self._rest_until.get(w.campaign_id, 0) <= now]
        chosen = self._wheel.choose({w.campaign_id: w.weight for w in awake}) if awake else None
        return next((w for w in due if chosen in (None, w.campaign_id)), None)

    async def _book(self, work: DueWork, account: Account, provider: Provider) -> bool:
        alike = self._services.providers.capabilities(account).alike
        at_once = _at_once(work, account, provider, alike=alike)
        rate = min(account.rate, work.policy.cps) / at_once
        n = min(slots_to_book(rate), math.ceil(work.due / at_once), MOST_SLOTS)
        caller_id = self._next_caller_id(work)
        horizon = min(HORIZON_S, max(0.0, self._end - self._clock.now()))
        booking = await self._services.limiter.reserve(
            _limits(work, account, at_once), n, horizon, min(horizon, self._lead())
        )
        if not booking.delays_s:
            return await self._wait_for_slot(booking.wait_s)
        now = self._clock.now()
        place = self._places.setdefault((work.campaign_id, caller_id), Place())
        place.slots.add(now + delay for delay in booking.delays_s)
        rows = await self._claim(work, caller_id, place, len(booking.delays_s) * at_once)
        if not rows:
            self._rest_until[work.campaign_id] = now + _REST_S
            return True
        self._spawn(Batch(work, account, provider, caller_id, place, rows, at_once))
        await self._nap(now + booking.delays_s[-1] - max(FEED_LEAD_S, self._lead()) - self._clock.now())
        return True

    def _lead(self) -> float:
        """How long it takes from a booking to a permit: a slot that comes sooner is always missed."""
        return min(LONGEST_LEAD_S, 2 * self._claim_s) + self._permit_lead()

    def _permit_lead(self) -> float:
        return min(LONGEST_LEAD_S, max(PERMIT_LEAD_S, 2 * self._permit_s))

    def _next_caller_id(self, work: DueWork) -> str:
        turn = self._turns.get(work.campaign_id, 0)
        self._turns[work.campaign_id] = turn + 1
        return work.policy.caller_ids[turn % len(work.policy.caller_ids)]

    async def _wait_for_slot(self, wait_s: float) -> bool:
        if wait_s <= HORIZON_S:
            await self._nap(wait_s)
            return True
        await self._services.store.next_slot_in(self._account_id, timedelta(seconds=wait_s))
        return False

    async def _claim(self, work: DueWork, caller_id: str, place: Place, calls: int) -> deque[Claimed]:
        rows, place.spare = place.spare, deque()
        wanted = math.ceil(calls * SPARE) - len(rows)
        if wanted > 0:
            began = self._clock.now()
            rows.extend(
                await self._services.store.claim(
                    work,
                    self._account_id,
                    [self._services.ids.key() for _ in range(wanted)],
                    caller_id=caller_id,
                    retries=math.ceil(wanted * self._services.shift.retry_share),
                    owner=self._owner,
                    lease=self._services.shift.lease,
                )
            )
            self._claim_s += (self._clock.now() - began - self._claim_s) * LEARNT
        return rows

    async def _nap(self, seconds: float) -> None:
        """Sleep, but notice within a quarter of a second that the shift is over."""
        until = self._clock.now() + seconds
        while not self._is_over() and (left := until - self._clock.now()) > 0:
            await self._clock.sleep(min(left, _NAP_S))

    def _spawn(self, batch: Batch) -> None:
        self._running = {t for t in self._running if not t.done()}
        self._running.add(self._services.tasks.spawn(self._send_batch(batch)))

    async def _send_batch(self, batch: Batch) -> None:
        try:
            while batch.rows and not self._is_over() and (slots := batch.place.free_slots(self._clock.now())):
                await self._clock.sleep(max(0.0, slots[0] - self._permit_lead() - self._clock.now()))
                if self._is_over() or not await self._send_group(batch):
                    break
        finally:
            batch.place.spare.extend(batch.rows)

    async def _send_group(self, batch: Batch) -> bool:
        """Permit rows for the slots that come up next and start them; False when the whole campaign is held."""
        place, free = batch.place, batch.place.free_slots(self._clock.now())
        room = batch.provider.free - self._waiting_to_send
        slots = deque(at for at in free[: max(0, room)] if at <= free[0] + GROUP_S)
        if not slots:
            await self._clock.sleep(LATE_S)
            return True
        held = False
        while slots and batch.rows and not held:
            group = [batch.rows.popleft() for _ in range(min(len(slots) * batch.at_once, len(batch.rows)))]
            asked_at = self._clock.now()
            asked = {request[0].key for request in _requests(group, batch.at_once)}
            place.unsent |= asked
            granted, held = await self._permit(batch, group)
            requests = _requests(granted, batch.at_once)
            place.unsent -= asked
            place.unsent |= {request[0].key for request in requests}
            for request in requests:
                self._running.add(self._services.tasks.spawn(self._send(batch, request, slots.popleft(), asked_at)))
        return not held

    async def _permit(self, batch: Batch, group: list[Claimed]) -> tuple[list[Claimed], bool]:
        """The granted rows, and whether something holds the whole campaign back."""
        began = self._clock.now()
        try:
            granted, refused = await self._services.store.permit(
                self._account_id, group, owner=self._owner, lease=self._services.shift.lease
            )
        except ServerError:
            # granted or not, nobody knows: we are alive, so we dial nobody and say so
            log.warning("permit lost", extra={"account_id": self._account_id, "n": len(group)})
            for row in group:
                self._withdraw(row, "PERMIT_LOST")
            return [], True
        self._permit_s += (self._clock.now() - began - self._permit_s) * LEARNT
        held = any(isinstance(step, PutBack) and step.reason in HOLDS_ALL for step in refused.values())
        if held:
            self._rest_until[batch.work.campaign_id] = self._clock.now() + _REST_S
        return [row for row in group if row.key in granted], held

    async def _send(self, batch: Batch, rows: Sequence[Claimed], slot: float, permitted_at: float) -> None:
        """Send at a slot. What the veto stopped has not left, and may take a later slot while its permit lives."""
        dies_at = permitted_at + self._services.shift.permit_age_s
        name, waiting = rows[0].key, {row.key: call_for(row, batch.work.policy) for row in rows}
        next_slot: float | None = slot
        last: Outcome | None = None
        try:
            while waiting and next_slot is not None:  # again only for what found no slot in time
                await self._wait_for(next_slot)
                may_send = partial(self._may_send, batch.place, name, dies_at)
                outcomes = await batch.provider.submit(list(waiting.values()), may_send)
                vetoed = {key for key, outcome in outcomes.items() if outcome.detail == VETOED}
                next_slot = await self._later_slot(batch, dies_at) if vetoed else None
                for key, outcome in outcomes.items():
                    if key not in vetoed or next_slot is None:
                        self._recorder.add(News(key, outcome, Source.SUBMIT))
                        last = outcome
                waiting = {key: call for key, call in waiting.items() if key in vetoed}
        finally:
            batch.place.unsent.discard(name)
        if last:
            await self._watch(last)

    async def _wait_for(self, slot: float) -> None:
        self._waiting_to_send += 1
        try:
            await self._clock.sleep(max(0.0, slot - self._clock.now()))
        finally:
            self._waiting_to_send -= 1

    async def _may_send(self, place: Place, name: str, dies_at: float) -> bool:
        """Asked in the instant before bytes leave: takes a slot that has come, whoever it was meant for.

        A busy worker is late with every call; as long as slots come up, it still sends at the pace that it can.
        """
        until = min(dies_at, self._clock.now() + HOLD_S)
        place.queue[name] = None
        try:
            while not self._services.stopping() and (now := self._clock.now()) < until:
                if place.slots.take(now):
                    place.unsent.discard(name)
                    return True
                ahead = place.slots.ahead(now)
                rank = list(place.queue).index(name)
                if rank >= len(ahead) or ahead[rank] >= until:
                    return False
                await self._clock.sleep(ahead[rank] - now)
            return False
        finally:
            place.queue.pop(name, None)

    async def _later_slot(self, batch: Batch, dies_at: float) -> float | None:
        """The next slot, if one comes before the permit is too old."""
        now = self._clock.now()
        if now >= dies_at or self._services.stopping():
            return None
        if ahead := batch.place.slots.ahead(now):
            return ahead[0]
        booking = await self._services.limiter.reserve(
            _limits(batch.work, batch.account, batch.at_once), 1, dies_at - now
        )
        slots = [self._clock.now() + delay for delay in booking.delays_s]
        batch.place.slots.add(slots)
        return slots[0] if slots else None

    async def _watch(self, outcome: Outcome) -> None:
        """Stop the account when answer after answer is lost, or nobody is there: better nobody than people in doubt."""
        self._lost = self._lost + 1 if outcome.disposition is Disposition.RECONCILE else 0
        self._unreachable = self._unreachable + 1 if outcome.detail == UNREACHABLE else 0
        if self._lost >= FAILING_AFTER:
            await stop_account(self._account_id, "PROVIDER_FAILING", self._services)
        elif self._unreachable >= UNREACHABLE_AFTER:
            await stop_account(self._account_id, UNREACHABLE, self._services)

    def _withdraw(self, row: Claimed, why: str) -> None:
        unsent = Outcome(disposition=Disposition.NOT_SENT, detail=why)
        self._recorder.add(News(row.key, unsent, Source.SUBMIT))

    async def _finish(self) -> None:
        """Put back what was not sent, then wait for what is on the wire: each POST has its deadline."""
        self._release_spare()
        while self._running:
            try:
                await self._running.pop()
            except Exception:
                # what it held is settled by its lease; the others must still be waited for
                log.exception("part of a shift failed", extra={"account_id": self._account_id})
        self._release_spare()

    def _release_spare(self) -> None:
        for place in self._places.values():
            while place.spare:
                self._withdraw(place.spare.popleft(), "SHIFT_OVER")


def call_for(row: Claimed, policy: Policy) -> Call:
    """What the provider is asked for one destination."""
    content = policy.content
    return Call(
        key=row.key,
        to=row.e164,
        caller_id=row.caller_id,
        channel=policy.channel,
        text=content.render(row.variables),
        voice=content.voice,
        language=content.language,
        audio_url=content.audio_url,
        flow=content.flow,
        variables={name: row.variables[name] for name in content.variables},
    )


def _requests(rows: Sequence[Claimed], at_once: int) -> list[Sequence[Claimed]]:
    return [rows[i : i + at_once] for i in range(0, len(rows), at_once)]


def _at_once(work: DueWork, account: Account, provider: Provider, *, alike: bool) -> int:
    """Calls of one request. A slot is a request's: who says something else to everybody needs a slot for each."""
    cps = min(account.cps, work.policy.cps)
    most = 1 if alike and work.policy.content.variables else provider.calls_per_request
    return calls_at_once(most, cps * account.headroom * account.pace_now, cps)


def _limits(work: DueWork, account: Account, at_once: int) -> list[Limit]:
    return [
        Limit(f"account:{account.id}", at_once / account.rate),
        Limit(f"campaign:{work.campaign_id}", at_once / (work.policy.cps * account.headroom)),
    ]
