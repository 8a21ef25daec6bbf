"""Dial: bounded shifts that stream reserve, permit, POST and record, without a barrier between them."""

import logging
from collections import Counter
from dataclasses import dataclass, field
from datetime import timedelta

from dispatcher.domain.errors import ServerError
from dispatcher.domain.results import Disposition
from dispatcher.flow.account_dialer import AccountDialer
from dispatcher.flow.settle import Recorder
from dispatcher.ports import Services, Task

log = logging.getLogger(__name__)

MOST_ACCOUNTS = 50
_OTHERS_AFTER_S = 0.2
"""Workers that are idle have taken what they can by then; when there are none, nobody else comes."""
_OTHERS_EVERY_S = 2.0
_LOOK_EVERY_S = 0.1
_WORTH_S = 3.0
"""With less time left it is not worth taking a place of another account."""
_SLACK_S = 10


@dataclass(slots=True)
class ShiftSummary:
    """What flower shows of a shift."""

    accounts: list[int] = field(default_factory=list)
    outcomes: Counter[Disposition] = field(default_factory=Counter)

    def __str__(self) -> str:
        counts = ", ".join(f"{n} {disposition}" for disposition, n in sorted(self.outcomes.items()))
        return f"accounts {', '.join(map(str, self.accounts)) or '-'}: {counts or 'nothing to dial'}"


async def run_shift(account_id: int, services: Services) -> ShiftSummary:
    """Dial for an account, and for others that wait, until the shift ends, the work does, or we are to stop."""
    clock = services.clock
    end = clock.now() + services.shift.length_s
    summary = ShiftSummary()
    serving: dict[int, Task] = {account_id: services.tasks.spawn(_serve(account_id, end, summary, services))}
    next_look = clock.now() + _OTHERS_AFTER_S
    while serving:
        await clock.sleep(_LOOK_EVERY_S)
        serving = {i: task for i, task in serving.items() if not task.done()}
        if serving and clock.now() >= next_look and clock.now() < end - _WORTH_S and not services.stopping():
            next_look = clock.now() + _OTHERS_EVERY_S
            for other in await _waiting(services):
                if other not in serving and len(serving) < MOST_ACCOUNTS:
                    serving[other] = services.tasks.spawn(_serve(other, end, summary, services))
    return summary


async def _waiting(services: Services) -> list[int]:
    """Accounts that nobody serves; none while the database is away, because the crew must be seen to its end."""
    try:
        return list(await services.store.missing_shifts())
    except ServerError:
        return []


async def _serve(account_id: int, end: float, summary: ShiftSummary, services: Services) -> None:
    """Hold one of the account's shift slots and dial in it; whatever happens, the others of the crew go on."""
    try:
        await _hold_slot(account_id, end, summary, services)
    except Exception:
        log.exception("serving an account failed", extra={"account_id": account_id})


async def _hold_slot(account_id: int, end: float, summary: ShiftSummary, services: Services) -> None:
    owner = services.ids.owner()
    lease = timedelta(seconds=services.shift.length_s + services.shift.deadline_s + _SLACK_S)
    shift = await services.store.take_shift(account_id, owner, lease)
    if shift is None:
        return
    summary.accounts.append(account_id)
    recorder = Recorder(account_id, services)
    writing = services.tasks.spawn(recorder.run())
    dialer = AccountDialer(shift, end, recorder, services)
    try:
        has_work = await dialer.run()
        # before what is on the wire is waited for: the next shift need not wait for it
        await services.store.leave_shift(shift)
        if has_work:
            await services.broker.start_shift(account_id)
    finally:
        await dialer.drain()
        recorder.close()
        await writing
        summary.outcomes.update(recorder.outcomes)
