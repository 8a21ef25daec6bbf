"""One account's part of a shift: book slots, permit rows for them, and hand these to the sender.

Slots come first, rows are permitted for them: never for more than the next tenth of a second, because what a killed
worker had permitted and not sent ends as TIMEOUT.
"""

import logging
import math
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta

from dispatcher.domain.account import Account, AccountState, StopReason
from dispatcher.domain.attempt import Shift
from dispatcher.domain.errors import DispatcherError, ServerError, UsageError
from dispatcher.domain.lead_time import LeadTime
from dispatcher.domain.own_pace import OwnPace
from dispatcher.domain.pacing import (
    GROUP_S,
    RateLimit,
    Reservation,
    account_limit,
    fair_group,
    max_calls_per_request,
    slots_of,
    slots_to_reserve,
)
from dispatcher.domain.permitting import Hold, PermitRequest, Permits, Permitted, Terms, number_refusal
from dispatcher.domain.reasons import Cause, Fault
from dispatcher.domain.results import AttemptUpdate, Disposition, Outcome, UpdateSource
from dispatcher.domain.round_robin import Split, WeightedRoundRobin
from dispatcher.domain.states import State
from dispatcher.domain.tick import DueWork
from dispatcher.flow.send_queue import SendQueue
from dispatcher.flow.sender import Permit, Sender
from dispatcher.flow.settle import Recorder, stop_account
from dispatcher.ports import Provider, Services, Task

log = logging.getLogger(__name__)

HORIZON_S = 2.0
MOST_COUNTED = 500
SHORTEST_LEAD_S, LONGEST_LEAD_S = 0.03, 0.7
LOOK_S = 1.0
"""The account and its campaigns are read again after this."""
KEEP_TRYING_S = 20
"""As long as a shift's task has before its time limit."""
_REST_S = 0.5
_NAP_S = 0.25
_CROWDED_S = 0.01
_LEAST = 32
"""A worker that has fewer places left waits for more: small groups cost as much as large ones."""
_RETRY_S = 0.5


class AccountDialer:
    """Dials for one account until `end`."""

    def __init__(self, shift: Shift, end: float, recorder: Recorder, services: Services) -> None:
        self._shift: Shift | None = shift
        self._account_id = shift.account_id
        self._end = end
        self._recorder = recorder
        self._services = services
        self._clock = services.clock
        self._sender = Sender(recorder, self._stop_account, services)
        self._round_robin = WeightedRoundRobin()
        self._queues: dict[tuple[int, str], SendQueue] = {}
        self._limits: dict[SendQueue, list[RateLimit]] = {}
        """That each queue books its slots in."""
        self._work: dict[int, DueWork] = {}
        self._rest_until: dict[int, float] = {}
        self._turns: dict[int, int] = {}
        self._retries: dict[int, Split] = {}
        self._running: set[Task] = set()
        self._own_pace = OwnPace()
        self._lead = LeadTime(SHORTEST_LEAD_S, LONGEST_LEAD_S)
        self._account: Account | None = None
        self._looked_at = float("-inf")

    async def run(self) -> bool:
        """Dial while there is work, and until the shift ends; is there work left for the next one?"""
        try:
            while not self._is_over() and await self._step():
                pass
        except UsageError as error:
            log.error("account without credentials", extra={"account_id": self._account_id, "error": str(error)})
            await self._stop_account(StopReason.CREDENTIALS_MISSING)
        except ServerError:
            log.exception("shift ends early", extra={"account_id": self._account_id})
        return bool(self._work) and not self._services.stopping()

    def _is_over(self) -> bool:
        return self._services.stopping() or self._shift is None or self._clock.now() >= self._end

    async def _stop_account(self, reason: str) -> None:
        await stop_account(self._account_id, reason, self._services)

    async def _step(self) -> bool:
        """One booking and its permits: False when the account has nothing to do in this shift any more."""
        if self._clock.now() >= self._looked_at + LOOK_S:
            self._account, work = await self._services.store.due_work(self._account_id, MOST_COUNTED)
            self._work = {w.campaign_id: w for w in work}
            self._looked_at = self._clock.now()
        account = self._account_now()
        if account is None or not self._may_send() or not self._work:
            return False
        now = self._clock.now()
        awake = {i: w.weight for i, w in self._work.items() if self._rest_until.get(i, 0) <= now}
        if not awake:
            await self._nap(min(_NAP_S, min(self._rest_until[i] for i in self._work) - now))
            return True
        return await self._serve(self._work[self._round_robin.choose(awake)], account, sum(awake.values()))

    def _account_now(self) -> Account | None:
        """The account as it was read last, and its pace as it has recovered since."""
        if self._account is None:
            return None
        age = timedelta(seconds=self._clock.now() - self._looked_at)
        return replace(self._account, as_of=self._account.as_of + age)

    async def _serve(self, work: DueWork, account: Account, weights: int) -> bool:
        provider = self._services.providers.of(account)
        calls_per_request = self._calls_per_request(work, account, provider)
        caller_id = self._next_caller_id(work)
        queue = self._queue(work, caller_id)
        self._own_pace.observe(*queue.counts())
        rate = min(account.rate * self._own_pace.share, work.policy.cps) / calls_per_request
        most = fair_group(account.rate * self._own_pace.share / calls_per_request, weights)
        wanted = min(slots_to_reserve(rate), most, math.ceil(work.due / calls_per_request))
        n = min(wanted, provider.free - self._sender.waiting)
        if n < min(wanted, _LEAST):
            await self._reserve_for_pending()  # they hold the places that are missing here
            await self._clock.sleep(_CROWDED_S)
            return True
        per_request = provider.requests_per_submit
        limits = self._limits[queue] = _limits(work, account, calls_per_request, self._own_pace.share)
        blocked = await self._reserve(queue, n * per_request, limits, self._end)
        if blocked:
            return await self._wait_for_slot(work, blocked, limits)
        slots = await self._next_slots(queue, n * per_request)
        if len(slots) < per_request:
            return True
        asked_at = self._clock.now()
        queue.pending += len(slots)
        permits = await self._permit(work, account, caller_id, len(slots) // per_request * calls_per_request)
        self._lead.observe(self._clock.now() - asked_at)
        self._hand_over(permits.granted, slots, calls_per_request, Permit(work.policy, provider, queue, asked_at))
        self._note(work, permits)
        await self._nap(slots[-1] - self._lead.seconds - self._clock.now())
        return True

    def _queue(self, work: DueWork, caller_id: str) -> SendQueue:
        key = (work.campaign_id, caller_id)
        if key not in self._queues:
            self._queues[key] = SendQueue(self._clock, self._services.stopping)
        return self._queues[key]

    def _calls_per_request(self, work: DueWork, account: Account, provider: Provider) -> int:
        """Calls of one request, and so of one slot; one where all must be alike and each says something else."""
        single_text = self._services.providers.capabilities(account).single_text
        cps = min(account.cps, work.policy.cps)
        most = 1 if single_text and work.policy.content.variables else provider.calls_per_request
        return max_calls_per_request(most, cps * account.headroom * account.pace_now, cps)

    def _next_caller_id(self, work: DueWork) -> str:
        turn = self._turns.get(work.campaign_id, 0)
        self._turns[work.campaign_id] = turn + 1
        return work.policy.caller_ids[turn % len(work.policy.caller_ids)]

    async def _reserve(self, queue: SendQueue, n: int, limits: list[RateLimit], until: float) -> Reservation | None:
        """Book slots for the pending requests and `n` more. Returns the refusal when not one slot is free."""
        missing = n + queue.pending - len(queue.ahead())
        if missing <= 0:
            return None
        horizon = min(HORIZON_S, max(0.0, until - self._clock.now()))
        asked_at = self._clock.now()
        reservation = await self._services.limiter.reserve(limits, missing, horizon, min(horizon, self._lead.seconds))
        queue.add(slots_of(reservation, asked_at, self._clock.now()))
        return None if reservation.delays_s or queue.free() else reservation

    async def _next_slots(self, queue: SendQueue, n: int) -> list[float]:
        """The free slots of the next group, when it is time to permit for them."""
        if free := queue.free():
            await self._nap(free[0] - self._lead.seconds - self._clock.now())
        free = queue.free()
        return [] if self._is_over() else [at for at in free if at <= free[0] + GROUP_S][:n]

    async def _wait_for_slot(self, work: DueWork, blocked: Reservation, limits: list[RateLimit]) -> bool:
        """False when the account has no slot for longer than a shift should wait."""
        if blocked.blocked_by == limits[-1].name:  # other campaigns of the account need not wait
            self._rest_until[work.campaign_id] = self._clock.now() + max(0.0, blocked.wait_s - self._lead.seconds)
            return True
        if blocked.wait_s <= HORIZON_S:
            await self._nap(blocked.wait_s)
            return True
        await self._services.store.next_slot_in(self._account_id, timedelta(seconds=blocked.wait_s))
        return False

    async def _permit(self, work: DueWork, account: Account, caller_id: str, n: int) -> Permits:
        assert self._shift
        ask = PermitRequest(
            shift=self._shift,
            work=work,
            caller_id=caller_id,
            keys=tuple(self._services.ids.key() for _ in range(n)),
            retries=self._retries.setdefault(work.campaign_id, Split(self._services.shift.retry_share)).take(n),
            terms=Terms.of(work.policy, work.policy_version, account.as_of),
            lease=self._services.shift.lease,
        )
        try:
            return await self._services.store.permit(ask)
        except DispatcherError:
            log.warning("permit lost", extra={"account_id": self._account_id, "n": n}, exc_info=True)
            await self._withdraw(ask.keys)
            return Permits(due_left=work.due)

    async def _withdraw(self, keys: Sequence[str]) -> None:
        """The answer is lost, and the rows may be permitted all the same: we are alive, so none of them is dialled."""
        until = self._clock.now() + KEEP_TRYING_S
        while self._clock.now() < until and self._shift:
            try:
                self._shift = await self._services.store.void_permits(self._shift)
                for key in await self._services.store.existing(keys):
                    self._recorder.add(AttemptUpdate(key, _not_sent(Cause.PERMIT_LOST), UpdateSource.SUBMIT))
                return
            except DispatcherError:
                await self._clock.sleep(_RETRY_S)
        self._shift = None  # their leases end, and they become UNKNOWN

    def _hand_over(
        self, granted: Sequence[Permitted], slots: Sequence[float], calls_per_request: int, permit: Permit
    ) -> None:
        """Spawn a sender for each request; what the policy's numbering plan does not allow is not sent."""
        allowed = []
        for row in granted:
            if why := number_refusal(row.e164, permit.policy):
                refused = replace(_not_sent(why), state=State.INVALID)
                self._recorder.add(
                    AttemptUpdate(row.key, refused, UpdateSource.SUBMIT), row.context(permit.policy, row.permit_at)
                )
            else:
                allowed.append(row)
        requests = [allowed[i : i + calls_per_request] for i in range(0, len(allowed), calls_per_request)]
        per_request = permit.provider.requests_per_submit
        permit.queue.pending -= len(slots) - len(requests) * per_request
        self._running = {task for task in self._running if not task.done()}
        for request, slot in zip(requests, slots[::per_request], strict=False):
            self._running.add(self._services.tasks.spawn(self._sender.send(request, slot, permit)))

    def _note(self, work: DueWork, permits: Permits) -> None:
        """What is left to do for the campaign."""
        if permits.held in (Hold.SHIFT_VOID, Hold.POLICY_CHANGED):
            self._shift = self._shift if permits.held is Hold.POLICY_CHANGED else None
            self._looked_at = float("-inf")
        elif permits.held:
            self._rest_until[work.campaign_id] = self._clock.now() + _REST_S
        elif permits.due_left:
            self._work[work.campaign_id] = replace(work, due=permits.due_left)
        else:
            self._work.pop(work.campaign_id, None)

    async def _nap(self, seconds: float) -> None:
        """Sleep, but notice within a quarter of a second that the shift is over."""
        until = self._clock.now() + seconds
        while not self._is_over() and (left := until - self._clock.now()) > 0:
            await self._clock.sleep(min(left, _NAP_S))

    async def drain(self) -> None:
        """Wait for what is on the wire: each request has its deadline. What has no slot yet gets one."""
        while any(not task.done() for task in self._running):
            if self._may_send():
                await self._reserve_for_pending()
            await self._clock.sleep(_CROWDED_S)
        for task in self._running:
            try:
                await task
            except Exception:
                # what it held is settled by its lease; the others must still be waited for
                log.exception("part of a shift failed", extra={"account_id": self._account_id})

    def _may_send(self) -> bool:
        account = self._account_now()
        able = account is not None and account.state is AccountState.OPEN and not account.is_throttled
        return able and self._shift is not None and not self._services.stopping()

    async def _reserve_for_pending(self) -> None:
        for queue, limits in self._limits.items():
            try:
                await self._reserve(queue, 0, limits, math.inf)
            except ServerError:
                log.warning("slots not booked", extra={"account_id": self._account_id}, exc_info=True)


def _not_sent(why: Cause | Fault) -> Outcome:
    return Outcome(disposition=Disposition.NOT_SENT, cause=why)


def _limits(work: DueWork, account: Account, calls_per_request: int, share: float) -> list[RateLimit]:
    return [
        account_limit(account.id, account.rate * share, calls_per_request),
        RateLimit(f"campaign:{work.campaign_id}", calls_per_request / (work.policy.cps * account.headroom)),
    ]
