"""Broken protocols: each breaks one rule of the dial path, and must be caught by a history.

A to R are those of the safety review that still make sense; the others are ours, on permits by slots. L (most dials,
not asked at the permit) and P change no history, because something before them asks the same: unit tests hold L.
`seeds` are those that were seen to catch it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pytest

from dispatcher.domain import pacing, permitting, settling
from dispatcher.domain.account import AccountState
from dispatcher.domain.attempt import Call, Shift
from dispatcher.domain.campaign import CampaignState
from dispatcher.domain.permitting import Candidate, PermitContext, Permits, Terms
from dispatcher.domain.reasons import Reason
from dispatcher.domain.results import AttemptUpdate, Disposition
from dispatcher.domain.states import Actor, Phase
from dispatcher.domain.steps import Finish, Redial, Requeue
from dispatcher.flow import account_dialer, postback, reconcile, send_queue, sender, settle
from tests.memory import dialling

D = Disposition
Patch = pytest.MonkeyPatch
Break = Callable[[Patch], None]
NEVER = float("inf")


@dataclass(frozen=True)
class Mutant:
    """What is broken, and the seeds that notice."""

    break_it: Break
    seeds: tuple[int, ...]

    @property
    def name(self) -> str:
        return self.break_it.__name__


def _handle(disposition: D, broken: Callable[..., Any]) -> Break:
    """Replace what the one door does with a disposition."""
    return lambda patch: patch.setattr(settling, "_HANDLERS", {**settling._HANDLERS, disposition: broken})


def _permit_context(change: Callable[[PermitContext], PermitContext]) -> Break:
    """Let the permit see the group's facts otherwise."""
    real = permitting.held_by
    return lambda patch: patch.setattr(dialling, "held_by", lambda gate, terms: real(change(gate), terms))


def _row(change: Callable[[Candidate], Candidate]) -> Break:
    """Let the permit see a row's facts otherwise."""
    real = permitting.refusal

    def refusal(row: Candidate, gate: PermitContext, terms: Terms) -> Finish | None:
        return real(change(row), gate, terms)

    return lambda patch: patch.setattr(dialling, "refusal", refusal)


def a_permit_age_is_not_asked(patch: Patch) -> None:
    real = sender._SlotGate.__init__
    patch.setattr(
        sender._SlotGate, "__init__", lambda self, queue, dies, needs, now: real(self, queue, NEVER, needs, now)
    )


def b_lost_permits_are_not_withdrawn(patch: Patch) -> None:
    async def withdraw(self: account_dialer.AccountDialer, keys: Sequence[str]) -> None:
        if self._shift:
            self._shift = await self._services.store.void_permits(self._shift)

    patch.setattr(account_dialer.AccountDialer, "_withdraw", withdraw)


def b_lost_permits_are_dialled(patch: Patch) -> None:
    """The answer is lost, and what it granted is sent and also put back."""
    real = account_dialer.AccountDialer._withdraw

    async def withdraw(self: account_dialer.AccountDialer, keys: Sequence[str]) -> None:
        await real(self, keys)
        account, store = self._account, self._services.store
        assert account
        provider = self._services.providers.of(account)
        known = store._inner.attempts  # type: ignore[attr-defined]
        calls = [_call_of(known[key]) for key in keys if key in known]

        async def may_send() -> bool:
            return True

        if calls:
            await provider.submit(calls, may_send)

    patch.setattr(account_dialer.AccountDialer, "_withdraw", withdraw)


def _call_of(attempt: Any) -> Any:
    return Call(key=attempt.key, to=attempt.row.e164, caller_id=attempt.caller_id, text="")


def b_epoch_is_not_asked(patch: Patch) -> None:
    _permit_context(lambda gate: replace(gate, shift_is_live=True))(patch)


def b_epoch_is_not_raised(patch: Patch) -> None:
    async def void_permits(self: dialling.Dialling, shift: Shift) -> Shift | None:
        return shift

    patch.setattr(dialling.Dialling, "void_permits", void_permits)


def b_keys_are_asked_for_before_the_epoch_is_raised(patch: Patch) -> None:
    real = account_dialer.AccountDialer._withdraw

    async def withdraw(self: account_dialer.AccountDialer, keys: Sequence[str]) -> None:
        await real(self, await self._services.store.existing(keys))

    patch.setattr(account_dialer.AccountDialer, "_withdraw", withdraw)


def c_slots_are_ignored(patch: Patch) -> None:
    async def turn(self: send_queue.SendQueue, until: float) -> bool:
        self.pending -= 1
        return True

    patch.setattr(send_queue.SendQueue, "turn", turn)


def d_account_limit_is_not_booked(patch: Patch) -> None:
    real = account_dialer._limits
    patch.setattr(account_dialer, "_limits", lambda *of: real(*of)[1:])


def e_paused_campaigns_dial_on(patch: Patch) -> None:
    _permit_context(lambda gate: replace(gate, campaign_state=CampaignState.RUNNING))(patch)


def f_no_cap_in_flight(patch: Patch) -> None:
    for module in (permitting, dialling):
        patch.setattr(module, "capacity_of", lambda gate, terms: 10_000)


def g_stopped_accounts_dial_on(patch: Patch) -> None:
    _permit_context(lambda gate: replace(gate, account_state=AccountState.OPEN))(patch)


def h_window_is_not_asked(patch: Patch) -> None:
    patch.setattr(permitting, "_is_open", lambda now, terms: True)


def i_late_results_are_dropped(patch: Patch) -> None:
    patch.setattr(settling, "_late", lambda news, at: settling._ignore(news, at, Reason.LATE))


def j_overdue_is_dialled_again(patch: Patch) -> None:
    _handle(D.OVERDUE, lambda news, at, random: _requeue(news, at, Phase.ABANDONED))(patch)


def k_who_was_reached_is_not_asked(patch: Patch) -> None:
    _row(lambda row: replace(row, reached=None))(patch)


def m_no_ceiling_of_permits(patch: Patch) -> None:
    patch.setattr(settling, "MAX_PERMITS", 10_000)
    patch.setattr(permitting, "MAX_PERMITS", 10_000)


def n_stop_is_not_listed(patch: Patch) -> None:
    async def deaf(*of: Any) -> None: ...

    patch.setattr(postback, "_list_opt_outs", deaf)


def o_refusal_is_believed_after_all(patch: Patch) -> None:
    def rejected(news: AttemptUpdate, at: Any, random: float) -> Any:
        due = at.now + (news.outcome.retry_after or settling.THROTTLED_WAIT)
        return settling._requeue(news, at, due, Reason.NOT_SENT, Phase.REJECTED)

    _handle(D.THROTTLE, rejected)(patch)


def q_nobody_is_looked_up(patch: Patch) -> None:
    async def ask(*of: Any) -> dict[str, Any]:
        return {}

    patch.setattr(reconcile, "_ask", ask)


def r_bytes_leave_while_stopping(patch: Patch) -> None:
    real = send_queue.SendQueue.__init__
    patch.setattr(send_queue.SendQueue, "__init__", lambda self, clock, stopping: real(self, clock, lambda: False))


def lists_are_not_asked_at_the_permit(patch: Patch) -> None:
    _row(lambda row: replace(row, on_dnc=False))(patch)


def age_counts_from_the_answer(patch: Patch) -> None:
    real = account_dialer.AccountDialer._hand_over

    def hand_over(
        self: account_dialer.AccountDialer, granted: Any, slots: Any, at_once: int, permit: sender.Permit
    ) -> None:
        real(self, granted, slots, at_once, replace(permit, asked_at=self._clock.now()))

    patch.setattr(account_dialer.AccountDialer, "_hand_over", hand_over)


def versions_are_not_compared(patch: Patch) -> None:
    patch.setattr(dialling.Dialling, "_versions", lambda self, attempt: ("", ""))


def put_backs_do_not_ask_the_lists(patch: Patch) -> None:
    patch.setattr(dialling, "_waits", lambda decision: False)


def reaper_puts_back(patch: Patch) -> None:
    _handle(D.LEASE_OVER, lambda news, at, random: _requeue(news, at, Phase.NOT_SENT))(patch)


def lost_answers_are_dialled_again(patch: Patch) -> None:
    _handle(D.RECONCILE, lambda news, at, random: _requeue(news, at, Phase.NOT_SENT))(patch)


def provider_is_dialled_over(patch: Patch) -> None:
    def redial(news: AttemptUpdate, at: Any, random: float) -> Any:
        return settling._decide(news, at, Redial(at.now, None, Reason.TAKEN_OVER), Phase.RESULT)

    _handle(D.PROVIDER_RETRY, redial)(patch)


def nobody_gives_up(patch: Patch) -> None:
    _handle(D.OVERDUE, lambda news, at, random: settling._ignore(news, at, Reason.CONFLICT))(patch)


def marks_are_written_before_news(patch: Patch) -> None:
    async def marks_first(account_id: int, news: Any, services: Any, *, known: Any, marks: Any) -> Any:
        await services.store.settle((), (), None, marks)
        return await settle.settle(account_id, news, services, known=known)

    patch.setattr(postback, "settle", marks_first)


def everybody_times_out(patch: Patch) -> None:
    """Nothing that anybody says is heard; what is open ends as it ends without news."""
    for disposition in (D.FINAL_SUCCESS, D.FINAL_FAILURE, D.RETRYABLE):
        _handle(disposition, settling._reconcile)(patch)


def persons_with_an_open_call_are_permitted(patch: Patch) -> None:
    """Two campaigns ring the same person at once."""
    real = dialling.Dialling.permit

    async def permit(self: dialling.Dialling, ask: Any) -> Permits:
        hidden, self._open = self._open, lambda: []  # type: ignore[method-assign]
        try:
            return await real(self, ask)
        finally:
            self._open = hidden  # type: ignore[method-assign]

    patch.setattr(dialling.Dialling, "permit", permit)


def late_slots_are_used(patch: Patch) -> None:
    for module in (send_queue, pacing):
        patch.setattr(module, "LATE_S", 5.0)


def redials_do_not_wait(patch: Patch) -> None:
    def at_once(news: AttemptUpdate, at: Any, random: float) -> Any:
        decision = settling._retryable(news, at, random)
        step = decision.step
        return replace(decision, step=replace(step, due_at=at.now)) if isinstance(step, Redial) else decision

    _handle(D.RETRYABLE, at_once)(patch)


def lease_is_forgotten(patch: Patch) -> None:
    """Nobody reaps: what a dead worker held stays SENDING."""
    _handle(D.LEASE_OVER, lambda news, at, random: settling._ignore(news, at, Reason.CONFLICT))(patch)


def recorder_gives_up_at_once(patch: Patch) -> None:
    patch.setattr(settle, "KEEP_TRYING_S", -1)


def _requeue(news: AttemptUpdate, at: Any, phase: Phase) -> Any:
    """A put-back that looks as if the sender had found that not a byte left."""
    return replace(settling._decide(news, at, Requeue(at.now, Reason.NOT_SENT), phase), actor=Actor.SENDER)


MUTANTS = tuple(
    Mutant(break_it, seeds)
    for break_it, seeds in (
        (a_permit_age_is_not_asked, (16, 2)),
        (b_lost_permits_are_not_withdrawn, (2, 13)),
        (b_lost_permits_are_dialled, (5, 7)),
        (b_epoch_is_not_asked, (1, 2)),
        (b_epoch_is_not_raised, (1, 2)),
        (b_keys_are_asked_for_before_the_epoch_is_raised, (16, 21)),
        (c_slots_are_ignored, (7, 5)),
        (d_account_limit_is_not_booked, (0, 9)),
        (e_paused_campaigns_dial_on, (6, 5)),
        (f_no_cap_in_flight, (21, 2)),
        (g_stopped_accounts_dial_on, (0, 2)),
        (h_window_is_not_asked, (13, 41)),
        (i_late_results_are_dropped, (0, 1)),
        (j_overdue_is_dialled_again, (9, 0)),
        (k_who_was_reached_is_not_asked, (16, 4)),
        (m_no_ceiling_of_permits, (22, 14)),
        (n_stop_is_not_listed, (0, 9)),
        (o_refusal_is_believed_after_all, (2, 0)),
        (q_nobody_is_looked_up, (0, 7)),
        (r_bytes_leave_while_stopping, (20, 23)),
        (lists_are_not_asked_at_the_permit, (0, 1)),
        (age_counts_from_the_answer, (18, 21)),
        (versions_are_not_compared, (9, 7)),
        (put_backs_do_not_ask_the_lists, (2, 10)),
        (reaper_puts_back, (9, 1)),
        (lost_answers_are_dialled_again, (0, 9)),
        (provider_is_dialled_over, (9, 0)),
        (nobody_gives_up, (9, 0)),
        (marks_are_written_before_news, (5, 13)),
        (everybody_times_out, (0, 9)),
        (persons_with_an_open_call_are_permitted, (0, 9)),
        (late_slots_are_used, (27, 41)),
        (redials_do_not_wait, (0, 9)),
        (lease_is_forgotten, (0, 7)),
        (recorder_gives_up_at_once, (23, 47)),
    )
)
"""The order of the review, then ours."""
