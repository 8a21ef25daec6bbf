"""Calls that are to ring no more, in memory."""

from collections.abc import Sequence
from datetime import timedelta

from dispatcher.domain.attempt import Unwanted
from dispatcher.domain.states import Phase
from tests.memory.tables import Attempt, Tables

_OVER = (Phase.NOT_SENT, Phase.REJECTED, Phase.RESULT)


class Cancelling(Tables):
    """Calls that are to ring no more, in memory."""

    async def take_cancels(self, account_id: int, n: int) -> list[Unwanted]:
        now = self.clock()
        taken: list[Attempt] = []
        for key, cancel in self.cancels.items():
            attempt = self.attempts[key]
            if attempt.account_id != account_id or cancel.ask_at is None or cancel.ask_at > now or len(taken) == n:
                continue
            wait = min(timedelta(minutes=10), timedelta(seconds=2) * 2**cancel.tries)
            cancel.ask_at = now + wait if cancel.tries < 20 and attempt.phase not in _OVER else None
            cancel.tries += 1
            taken.append(attempt)
        return [
            Unwanted(a.key, a.provider_call_id, a.provider_request_id)
            for a in taken
            if a.phase not in _OVER and (a.provider_request_id or a.provider_call_id) and not self._shared(a)
        ]

    def _shared(self, attempt: Attempt) -> bool:
        beside = [a for a in self._open() if a.provider_request_id == attempt.provider_request_id is not None]
        return any(a.account_id == attempt.account_id and a.key not in self.cancels for a in beside)

    async def end_cancels(self, keys: Sequence[str], *, asked: bool) -> None:
        for key in keys:
            self.cancels[key].ask_at, self.cancels[key].asked = None, asked
            attempt, soon = self.attempts[key], self.clock() + timedelta(seconds=5)
            if asked and attempt.look_at:
                attempt.look_at = min(attempt.look_at, soon)
