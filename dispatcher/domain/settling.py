"""What becomes of a destination and its attempt, given an update. Pure; `store` writes what it says.

Two rules stand above all others here: an attempt that may have rung is never dialled over (it waits, asks, and ends
as TIMEOUT), and a person who was reached, or is on a do-not-call list, is never put back.
"""

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta

from dispatcher.domain.account import FIRST_PROBE
from dispatcher.domain.campaign import CampaignState
from dispatcher.domain.reasons import Cause, Fault, Reason
from dispatcher.domain.results import REACHED, AttemptUpdate, Disposition, Result, UpdateSource
from dispatcher.domain.states import OPEN, WAITING, Actor, Phase, RetryOwner, State
from dispatcher.domain.steps import AttemptContext, Decision, Finish, Ignore, KeepOpen, Redial, Requeue, Step

MAX_PERMITS = 20
"""No destination gets more permits than this, whatever put it back."""
TAKE_OVER_SLACK = timedelta(minutes=1)
"""For the look-up that must come before a take-over."""
BUSY_WAIT = timedelta(seconds=60)
"""For a row whose person has an open attempt elsewhere."""
LATE_WAIT = timedelta(seconds=1)
THROTTLED_WAIT = timedelta(seconds=5)
REFUSED_WAIT = timedelta(seconds=10)
STOPPED_WAIT = FIRST_PROBE
"""The account is not open sooner, and nobody is dialled before it is."""
LONGEST_WAIT = timedelta(minutes=15)
PATIENT_PERMITS = 4
"""So many may be spent before the waits for an account's trouble grow."""
_LOOKUP_INTERVALS: Mapping[Phase, tuple[float, ...]] = {
    # shares of the phase's timeout between two lookups; the last one repeats
    Phase.UNKNOWN: (1 / 60, 1 / 15, 1 / 5),
    Phase.ACCEPTED: (1 / 12, 1 / 6, 1 / 4),
}
_LOOKUP_INTERVALS_OF_PROVIDER_RETRIES = (1 / 48, 1 / 24, 1 / 12)
SHORTEST_LOOKUP_INTERVAL = timedelta(seconds=2)
"""A call is asked about no sooner: look-ups take slots that calls could use."""


def next_step(update: AttemptUpdate, context: AttemptContext, fraction: float) -> Decision:
    """Decide what becomes of a destination. `draw` in [0, 1) is the retry's jitter."""
    outcome = update.outcome
    if context.phase not in OPEN:
        return _late(update, context)
    decision = _HANDLERS[outcome.disposition](update, context, fraction)
    if outcome.answered_at is not None and isinstance(decision.step, Redial | Requeue):
        # whatever word it ended with, somebody was reached
        result = Result.LA if outcome.result in (None, Result.UNDIALED) else outcome.result
        return _decide(update, context, Finish(State.FINISHED, result, Reason.ANSWERED), Phase.RESULT, result)
    return decision


def _decide(
    update: AttemptUpdate, context: AttemptContext, step: Step, phase: Phase, result: Result | None = None
) -> Decision:
    actor = update.source.actor
    if isinstance(step, Finish) and step.state is State.TIMEOUT:
        actor = Actor.RESOLVER
    elif context.state is not State.SELECTED:
        actor = Actor.RESULT  # the answer to the POST came after other news: it is one more report
    return Decision(
        context=context,
        step=step,
        phase=phase,
        actor=actor,
        outcome=update.outcome,
        result=(result or Result.UNDIALED) if phase is Phase.RESULT else None,
    )


def _ignore(update: AttemptUpdate, context: AttemptContext, why: Reason) -> Decision:
    return Decision(
        context=context,
        step=Ignore(why),
        phase=context.phase,
        actor=update.source.actor,
        outcome=update.outcome,
        result=context.attempt_result,
    )


def _final(update: AttemptUpdate, context: AttemptContext, fraction: float) -> Decision:
    outcome = update.outcome
    if outcome.state is State.TIMEOUT:
        return _lost_at_provider(update, context)
    if outcome.disposition is Disposition.FINAL_FAILURE and context.policy.retry.policy.covers(outcome.result):
        return _retryable(update, context, fraction)
    return _decide(update, context, Finish(State.FINISHED, outcome.result), Phase.RESULT, outcome.result)


def _lost_at_provider(update: AttemptUpdate, context: AttemptContext) -> Decision:
    """The provider dialled and does not know the result. T19 only if the campaign asks for it."""
    take_over = context.policy.timeouts.take_over
    provider_owned = context.retry_owner is RetryOwner.PROVIDER and context.state is State.CALLBACK
    allowed = (
        context.dials < context.policy.retry.max_dials
        and not context.on_dnc
        and context.campaign_state is not CampaignState.ABORTED
    )
    if provider_owned and take_over and context.permit_at and update.source is UpdateSource.LOOKUP and allowed:
        due = context.permit_at + take_over
        if context.now >= due:
            return _decide(update, context, Redial(context.now, None, Reason.TAKEN_OVER), Phase.ABANDONED)
        # not yet: asked once more when it is time, in case that a result comes before
        until = max(context.result_deadline or due, due + TAKE_OVER_SLACK)
        later = KeepOpen(RetryOwner.PROVIDER, due, until, context.lookups, Reason.TAKE_OVER_LATER)
        return _decide(update, context, later, Phase.ACCEPTED)
    return _decide(update, context, Finish(State.TIMEOUT, None, Reason.PROVIDER_TIMEOUT), Phase.ABANDONED)


def _retryable(update: AttemptUpdate, context: AttemptContext, fraction: float) -> Decision:
    result = update.outcome.result
    if result is Result.UNDIALED and context.state is State.CALLBACK:
        result = context.last_result or result  # it rang before they gave up
    elif result is Result.UNDIALED and context.state is State.SELECTED:
        return _requeue(
            update, context, context.now + _longer_each_time(context, REFUSED_WAIT), Reason.UNDIALED, Phase.RESULT
        )
    if context.on_dnc:
        return _decide(update, context, Finish(State.DNC, result, Reason.DNC_BEFORE_RETRY), Phase.RESULT, result)
    if context.campaign_state is CampaignState.ABORTED:
        return _decide(update, context, Finish(State.FINISHED, result, Reason.ABORTED), Phase.RESULT, result)
    if context.permits >= MAX_PERMITS:
        return _decide(update, context, Finish(State.FINISHED, result, Reason.PUT_BACK_LIMIT), Phase.RESULT, result)
    if update.outcome.redials is not None and context.dials > update.outcome.redials:
        return _decide(
            update, context, Finish(State.FINISHED, result, Reason.RETRIES_OF_RESULT_USED_UP), Phase.RESULT, result
        )
    due = context.policy.retry.policy.due_after(
        result,
        dials=context.dials,
        first_dialled_at=context.first_dialled_at or context.now,
        now=context.now,
        fraction=fraction,
    )
    if isinstance(due, Reason):
        return _decide(update, context, Finish(State.FINISHED, result, due), Phase.RESULT, result)
    assert result is not None  # the policy covers it
    return _decide(update, context, Redial(due, result, result), Phase.RESULT, result)


def _screened(update: AttemptUpdate, context: AttemptContext, fraction: float) -> Decision:
    if update.outcome.state is State.DUP:  # it waits there already, and our index says that we hold no other: ask
        return _reconcile(update, context, fraction)
    result = update.outcome.result
    step = Finish(update.outcome.state or State.INVALID, result, Reason.PROVIDER_SCREENED)
    return _decide(update, context, step, Phase.RESULT, result)


def _rejected(update: AttemptUpdate, context: AttemptContext, fraction: float) -> Decision:
    """Throttle, account stop, wrong configuration: nobody rang, nobody is charged."""
    contradicts = context.phase is Phase.ACCEPTED and update.source is UpdateSource.SUBMIT
    if (
        contradicts or context.state is not State.SELECTED
    ):  # a retry of the provider's own goes on: its deadline decides
        return _ignore(update, context, Reason.CONFLICT)
    outcome = update.outcome
    due = context.now + (outcome.retry_after or _wait_after(context, outcome.disposition))
    return _requeue(update, context, due, _REJECTED_FOR[outcome.disposition], Phase.REJECTED)


_REJECTED_FOR: Mapping[Disposition, Reason] = {
    Disposition.THROTTLE: Reason.THROTTLE,
    Disposition.ACCOUNT_STOP: Reason.ACCOUNT_STOP,
    Disposition.CONFIG_STOP: Reason.CONFIG_STOP,
}


def _wait_after(context: AttemptContext, why: Disposition) -> timedelta:
    if why is Disposition.CONFIG_STOP:
        return REFUSED_WAIT  # the campaign is paused
    return _longer_each_time(context, THROTTLED_WAIT if why is Disposition.THROTTLE else STOPPED_WAIT)


def _permits_for_nothing(context: AttemptContext) -> int:
    return context.permits - context.dials


def _longer_each_time(context: AttemptContext, wait: timedelta) -> timedelta:
    """Permits are few: trouble that lasts must not use them up."""
    spent = max(0, _permits_for_nothing(context) - PATIENT_PERMITS)
    return min(LONGEST_WAIT, wait * (1 << min(MAX_PERMITS, spent)))


def _not_sent(update: AttemptUpdate, context: AttemptContext, fraction: float) -> Decision:
    if context.phase is Phase.ACCEPTED:
        return _ignore(update, context, Reason.CONFLICT)
    reason = update.outcome.cause or Reason.NOT_SENT
    if update.outcome.state is State.INVALID:
        return _decide(update, context, Finish(State.INVALID, None, reason, dial_correction=-1), Phase.NOT_SENT)
    wait = update.outcome.retry_after or timedelta(0)
    if _permits_for_nothing(context) > PATIENT_PERMITS:  # a machine that is always late must not use them up
        wait = max(wait, _longer_each_time(context, LATE_WAIT))
    return _requeue(update, context, context.now + wait if wait else context.due_at, reason, Phase.NOT_SENT)


def _requeue(
    update: AttemptUpdate, context: AttemptContext, due_at: datetime, reason: Reason | Cause | Fault, phase: Phase
) -> Decision:
    result = update.outcome.result
    if context.on_dnc:
        return _decide(
            update, context, Finish(State.DNC, None, Reason.DNC_BEFORE_RETRY, dial_correction=-1), phase, result
        )
    last = context.last_result or Result.UNDIALED
    if context.campaign_state is CampaignState.ABORTED:
        return _decide(update, context, Finish(State.FINISHED, last, Reason.ABORTED, dial_correction=-1), phase, result)
    if context.permits >= MAX_PERMITS:
        return _decide(
            update, context, Finish(State.FINISHED, last, Reason.PUT_BACK_LIMIT, dial_correction=-1), phase, result
        )
    return _decide(update, context, Requeue(due_at, reason), phase, result)


def _in_flight(update: AttemptUpdate, context: AttemptContext, fraction: float) -> Decision:
    return _decide(update, context, _keep_open(context, Phase.ACCEPTED, context.retry_owner, update), Phase.ACCEPTED)


def _unknown_word(update: AttemptUpdate, context: AttemptContext, fraction: float) -> Decision:
    return _decide(
        update,
        context,
        _keep_open(context, Phase.ACCEPTED, context.retry_owner, update, Reason.UNKNOWN_WORD),
        Phase.ACCEPTED,
    )


def _provider_retry(update: AttemptUpdate, context: AttemptContext, fraction: float) -> Decision:
    if context.on_dnc:
        return _decide(
            update, context, Finish(State.DNC, update.outcome.result, Reason.DNC_BEFORE_RETRY), Phase.ABANDONED
        )
    reason = update.outcome.result or Reason.PROVIDER_RETRY
    return _decide(
        update, context, _keep_open(context, Phase.ACCEPTED, RetryOwner.PROVIDER, update, reason), Phase.ACCEPTED
    )


def _reconcile(update: AttemptUpdate, context: AttemptContext, fraction: float) -> Decision:
    """The answer is lost, or a lookup found nothing: proves nothing, so keep what is known and ask again."""
    if update.source is UpdateSource.SUBMIT and context.phase is not Phase.SENDING:
        return _ignore(update, context, Reason.LATE)
    phase = Phase.UNKNOWN if context.phase is Phase.SENDING else context.phase
    return _decide(update, context, _keep_open(context, phase, context.retry_owner, update, update.outcome.why), phase)


def _keep_open(
    context: AttemptContext, phase: Phase, owner: RetryOwner, update: AttemptUpdate, reason: str | None = None
) -> KeepOpen:
    timeouts = context.policy.timeouts
    lookups: tuple[float, ...]
    if owner is RetryOwner.PROVIDER:
        span, lookups = timeouts.provider_retry, _LOOKUP_INTERVALS_OF_PROVIDER_RETRIES
    else:
        span = timeouts.unknown if phase is Phase.UNKNOWN else timeouts.accepted
        lookups = _LOOKUP_INTERVALS[phase]
    same_wait = context.result_deadline is not None and phase is context.phase and owner is context.retry_owner
    result_deadline = context.result_deadline if same_wait and context.result_deadline else context.now + span
    made = context.lookups + 1 if same_wait and update.source is UpdateSource.LOOKUP else 0
    next_lookup_at = context.now + max(SHORTEST_LOOKUP_INTERVAL, span * lookups[min(made, len(lookups) - 1)])
    return KeepOpen(owner, min(next_lookup_at, max(result_deadline, context.now)), result_deadline, made, reason)


def _lease_over(update: AttemptUpdate, context: AttemptContext, fraction: float) -> Decision:
    """The worker is gone, and its request may have rung."""
    if not context.lease_over or context.phase is not Phase.SENDING:
        return _ignore(update, context, Reason.LEASE_ALIVE)
    return _decide(
        update,
        context,
        _keep_open(context, Phase.UNKNOWN, context.retry_owner, update, Reason.WORKER_LOST),
        Phase.UNKNOWN,
    )


def _overdue(update: AttemptUpdate, context: AttemptContext, fraction: float) -> Decision:
    if (
        context.phase not in (Phase.UNKNOWN, Phase.ACCEPTED)
        or context.result_deadline is None
        or context.now < context.result_deadline
    ):
        return _ignore(update, context, Reason.NOT_OVERDUE)
    return _decide(update, context, Finish(State.TIMEOUT, None, Reason.NO_NEWS), Phase.ABANDONED)


_HANDLERS: Mapping[Disposition, Callable[[AttemptUpdate, AttemptContext, float], Decision]] = {
    Disposition.FINAL_SUCCESS: _final,
    Disposition.FINAL_FAILURE: _final,
    Disposition.RETRYABLE: _retryable,
    Disposition.PROVIDER_RETRY: _provider_retry,
    Disposition.SCREENED: _screened,
    Disposition.ACCOUNT_STOP: _rejected,
    Disposition.CONFIG_STOP: _rejected,
    Disposition.THROTTLE: _rejected,
    Disposition.IN_FLIGHT: _in_flight,
    Disposition.HOLD: _in_flight,
    Disposition.RECONCILE: _reconcile,
    Disposition.UNKNOWN: _unknown_word,
    Disposition.NOT_SENT: _not_sent,
    Disposition.LEASE_OVER: _lease_over,
    Disposition.OVERDUE: _overdue,
}
assert set(_HANDLERS) == set(Disposition)

_TELLS_A_RESULT = frozenset(
    {
        Disposition.FINAL_SUCCESS,
        Disposition.FINAL_FAILURE,
        Disposition.RETRYABLE,
        Disposition.SCREENED,
    }
)


def _late(update: AttemptUpdate, context: AttemptContext) -> Decision:
    """News about a closed attempt: it may end a row that is not dialled again yet; it never causes a dial."""
    outcome = update.outcome
    if outcome.disposition not in _TELLS_A_RESULT or outcome.state in (State.TIMEOUT, State.DUP):
        return _ignore(update, context, Reason.LATE)
    if context.phase is Phase.NOT_SENT:
        return _ignore(update, context, Reason.IMPOSSIBLE)
    if context.phase is Phase.RESULT and outcome.result is context.attempt_result:
        return _ignore(update, context, Reason.DUPLICATE)
    # T13: a provider that contradicts itself before we dialled again: the row ends with what it says now
    ours = context.state in WAITING and context.retry_owner is RetryOwner.DISPATCHER
    now_reached = outcome.result in REACHED and context.attempt_result not in REACHED
    if context.phase is Phase.RESULT and not (context.is_latest and ours) and not now_reached:
        return _ignore(update, context, Reason.CONFLICT)
    final = outcome.state if outcome.disposition is Disposition.SCREENED and outcome.state else State.FINISHED
    amends = context.is_latest and (context.state is State.TIMEOUT or ours)
    was_uncharged = context.phase is Phase.REJECTED or context.attempt_result is Result.UNDIALED
    dial_correction = int(was_uncharged and outcome.disposition is not Disposition.SCREENED)
    step: Step = (
        Finish(final, outcome.result, Reason.LATE_RESULT, dial_correction) if amends else Ignore(Reason.RECORDED)
    )
    return _decide(update, context, step, Phase.RESULT, outcome.result)
