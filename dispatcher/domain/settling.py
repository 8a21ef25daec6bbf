"""The one door: what becomes of a destination and its attempt, given news. Pure; `store` writes what it says.

Two rules stand above all others here: an attempt that may have rung is never dialled over (it waits, asks, and ends
as TIMEOUT), and a person who was reached, or is on a do-not-call list, is never put back.
"""

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta

from dispatcher.domain.account import FIRST_PROBE
from dispatcher.domain.campaign import CampaignState
from dispatcher.domain.reasons import Cause, Fault, Reason
from dispatcher.domain.results import REACHED, Disposition, News, Result, Source
from dispatcher.domain.states import OPEN, WAITING, Actor, Phase, RetryOwner, State
from dispatcher.domain.steps import Await, Decision, Finish, Ignore, PutBack, Redial, Situation, Step

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
_LOOKS: Mapping[Phase, tuple[float, ...]] = {
    # shares of the phase's timeout between two lookups; the last one repeats
    Phase.UNKNOWN: (1 / 60, 1 / 15, 1 / 5),
    Phase.ACCEPTED: (1 / 12, 1 / 6, 1 / 4),
}
_LOOKS_WHILE_PROVIDER_RETRIES = (1 / 48, 1 / 24, 1 / 12)
SHORTEST_LOOK = timedelta(seconds=2)
"""A call is asked about no sooner: look-ups take slots that calls could use."""


def next_step(news: News, at: Situation, draw: float) -> Decision:
    """Decide what becomes of a destination. `draw` in [0, 1) is the retry's jitter."""
    outcome = news.outcome
    if at.phase not in OPEN:
        return _late(news, at)
    decision = _HANDLERS[outcome.disposition](news, at, draw)
    if outcome.answered_at is not None and isinstance(decision.step, Redial | PutBack):
        # whatever word it ended with, somebody was reached
        result = Result.LA if outcome.result in (None, Result.UNDIALED) else outcome.result
        return _decide(news, at, Finish(State.FINISHED, result, Reason.ANSWERED), Phase.RESULT, result)
    return decision


def _decide(news: News, at: Situation, step: Step, phase: Phase, result: Result | None = None) -> Decision:
    actor = news.source.actor
    if isinstance(step, Finish) and step.state is State.TIMEOUT:
        actor = Actor.RESOLVER
    elif at.state is not State.SELECTED:
        actor = Actor.RESULT  # the answer to the POST came after other news: it is one more report
    return Decision(
        at=at,
        step=step,
        phase=phase,
        actor=actor,
        outcome=news.outcome,
        result=(result or Result.UNDIALED) if phase is Phase.RESULT else None,
    )


def _ignore(news: News, at: Situation, why: Reason) -> Decision:
    return Decision(
        at=at,
        step=Ignore(why),
        phase=at.phase,
        actor=news.source.actor,
        outcome=news.outcome,
        result=at.attempt_result,
    )


def _final(news: News, at: Situation, draw: float) -> Decision:
    outcome = news.outcome
    if outcome.state is State.TIMEOUT:
        return _lost_at_provider(news, at)
    if outcome.disposition is Disposition.FINAL_FAILURE and at.policy.retry.policy.covers(outcome.result):
        return _retryable(news, at, draw)
    return _decide(news, at, Finish(State.FINISHED, outcome.result), Phase.RESULT, outcome.result)


def _lost_at_provider(news: News, at: Situation) -> Decision:
    """The provider dialled and does not know the result. T19 only if the campaign asks for it."""
    take_over = at.policy.timeouts.take_over
    provider_owned = at.retry_owner is RetryOwner.PROVIDER and at.state is State.CALLBACK
    allowed = (
        at.charged < at.policy.retry.max_dials and not at.on_dnc and at.campaign_state is not CampaignState.ABORTED
    )
    if provider_owned and take_over and at.permit_at and news.source is Source.LOOKUP and allowed:
        due = at.permit_at + take_over
        if at.now >= due:
            return _decide(news, at, Redial(at.now, None, Reason.TAKEN_OVER), Phase.ABANDONED)
        # not yet: asked once more when it is time, in case that a result comes before
        until = max(at.resolve_by or due, due + TAKE_OVER_SLACK)
        later = Await(RetryOwner.PROVIDER, due, until, at.looks, Reason.TAKE_OVER_LATER)
        return _decide(news, at, later, Phase.ACCEPTED)
    return _decide(news, at, Finish(State.TIMEOUT, None, Reason.PROVIDER_TIMEOUT), Phase.ABANDONED)


def _retryable(news: News, at: Situation, draw: float) -> Decision:
    result = news.outcome.result
    if result is Result.UNDIALED and at.state is State.CALLBACK:
        result = at.last_result or result  # it rang before they gave up
    elif result is Result.UNDIALED and at.state is State.SELECTED:
        return _put_back(news, at, at.now + _longer_each_time(at, REFUSED_WAIT), Reason.UNDIALED, Phase.RESULT)
    if at.on_dnc:
        return _decide(news, at, Finish(State.DNC, result, Reason.DNC_BEFORE_RETRY), Phase.RESULT, result)
    if at.campaign_state is CampaignState.ABORTED:
        return _decide(news, at, Finish(State.FINISHED, result, Reason.ABORTED), Phase.RESULT, result)
    if at.permits >= MAX_PERMITS:
        return _decide(news, at, Finish(State.FINISHED, result, Reason.PUT_BACK_LIMIT), Phase.RESULT, result)
    if news.outcome.redials is not None and at.charged > news.outcome.redials:
        return _decide(news, at, Finish(State.FINISHED, result, Reason.RETRIES_OF_RESULT_USED_UP), Phase.RESULT, result)
    due = at.policy.retry.policy.due_after(
        result,
        charged=at.charged,
        first_dialled_at=at.first_dialled_at or at.now,
        now=at.now,
        draw=draw,
    )
    if isinstance(due, Reason):
        return _decide(news, at, Finish(State.FINISHED, result, due), Phase.RESULT, result)
    assert result is not None  # the policy covers it
    return _decide(news, at, Redial(due, result, result), Phase.RESULT, result)


def _screened(news: News, at: Situation, draw: float) -> Decision:
    if news.outcome.state is State.DUP:  # it waits there already, and our index says that we hold no other: ask
        return _reconcile(news, at, draw)
    result = news.outcome.result
    step = Finish(news.outcome.state or State.INVALID, result, Reason.PROVIDER_SCREENED)
    return _decide(news, at, step, Phase.RESULT, result)


def _rejected(news: News, at: Situation, draw: float) -> Decision:
    """Throttle, account stop, wrong configuration: nobody rang, nobody is charged."""
    contradicts = at.phase is Phase.ACCEPTED and news.source is Source.SUBMIT
    if contradicts or at.state is not State.SELECTED:  # a retry of the provider's own goes on: its deadline decides
        return _ignore(news, at, Reason.CONFLICT)
    outcome = news.outcome
    due = at.now + (outcome.retry_after or _wait_after(at, outcome.disposition))
    return _put_back(news, at, due, _REJECTED_FOR[outcome.disposition], Phase.REJECTED)


_REJECTED_FOR: Mapping[Disposition, Reason] = {
    Disposition.THROTTLE: Reason.THROTTLE,
    Disposition.ACCOUNT_STOP: Reason.ACCOUNT_STOP,
    Disposition.CONFIG_STOP: Reason.CONFIG_STOP,
}


def _wait_after(at: Situation, why: Disposition) -> timedelta:
    if why is Disposition.CONFIG_STOP:
        return REFUSED_WAIT  # the campaign is paused
    return _longer_each_time(at, THROTTLED_WAIT if why is Disposition.THROTTLE else STOPPED_WAIT)


def _permits_for_nothing(at: Situation) -> int:
    return at.permits - at.charged


def _longer_each_time(at: Situation, wait: timedelta) -> timedelta:
    """Permits are few: trouble that lasts must not use them up."""
    spent = max(0, _permits_for_nothing(at) - PATIENT_PERMITS)
    return min(LONGEST_WAIT, wait * (1 << min(MAX_PERMITS, spent)))


def _not_sent(news: News, at: Situation, draw: float) -> Decision:
    if at.phase is Phase.ACCEPTED:
        return _ignore(news, at, Reason.CONFLICT)
    reason = news.outcome.cause or Reason.NOT_SENT
    if news.outcome.state is State.INVALID:
        return _decide(news, at, Finish(State.INVALID, None, reason, charge=-1), Phase.NOT_SENT)
    wait = news.outcome.retry_after or timedelta(0)
    if _permits_for_nothing(at) > PATIENT_PERMITS:  # a machine that is always late must not use them up
        wait = max(wait, _longer_each_time(at, LATE_WAIT))
    return _put_back(news, at, at.now + wait if wait else at.due_at, reason, Phase.NOT_SENT)


def _put_back(news: News, at: Situation, due_at: datetime, reason: Reason | Cause | Fault, phase: Phase) -> Decision:
    result = news.outcome.result
    if at.on_dnc:
        return _decide(news, at, Finish(State.DNC, None, Reason.DNC_BEFORE_RETRY, charge=-1), phase, result)
    last = at.last_result or Result.UNDIALED
    if at.campaign_state is CampaignState.ABORTED:
        return _decide(news, at, Finish(State.FINISHED, last, Reason.ABORTED, charge=-1), phase, result)
    if at.permits >= MAX_PERMITS:
        return _decide(news, at, Finish(State.FINISHED, last, Reason.PUT_BACK_LIMIT, charge=-1), phase, result)
    return _decide(news, at, PutBack(due_at, reason), phase, result)


def _in_flight(news: News, at: Situation, draw: float) -> Decision:
    return _decide(news, at, _await(at, Phase.ACCEPTED, at.retry_owner, news), Phase.ACCEPTED)


def _unknown_word(news: News, at: Situation, draw: float) -> Decision:
    return _decide(news, at, _await(at, Phase.ACCEPTED, at.retry_owner, news, Reason.UNKNOWN_WORD), Phase.ACCEPTED)


def _provider_retry(news: News, at: Situation, draw: float) -> Decision:
    if at.on_dnc:
        return _decide(news, at, Finish(State.DNC, news.outcome.result, Reason.DNC_BEFORE_RETRY), Phase.ABANDONED)
    reason = news.outcome.result or Reason.PROVIDER_RETRY
    return _decide(news, at, _await(at, Phase.ACCEPTED, RetryOwner.PROVIDER, news, reason), Phase.ACCEPTED)


def _reconcile(news: News, at: Situation, draw: float) -> Decision:
    """The answer is lost, or a lookup found nothing: proves nothing, so keep what is known and ask again."""
    if news.source is Source.SUBMIT and at.phase is not Phase.SENDING:
        return _ignore(news, at, Reason.LATE)
    phase = Phase.UNKNOWN if at.phase is Phase.SENDING else at.phase
    return _decide(news, at, _await(at, phase, at.retry_owner, news, news.outcome.why), phase)


def _await(at: Situation, phase: Phase, owner: RetryOwner, news: News, reason: str | None = None) -> Await:
    timeouts = at.policy.timeouts
    looks: tuple[float, ...]
    if owner is RetryOwner.PROVIDER:
        span, looks = timeouts.provider_retry, _LOOKS_WHILE_PROVIDER_RETRIES
    else:
        span = timeouts.unknown if phase is Phase.UNKNOWN else timeouts.accepted
        looks = _LOOKS[phase]
    same_wait = at.resolve_by is not None and phase is at.phase and owner is at.retry_owner
    resolve_by = at.resolve_by if same_wait and at.resolve_by else at.now + span
    made = at.looks + 1 if same_wait and news.source is Source.LOOKUP else 0
    look_at = at.now + max(SHORTEST_LOOK, span * looks[min(made, len(looks) - 1)])
    return Await(owner, min(look_at, max(resolve_by, at.now)), resolve_by, made, reason)


def _lease_over(news: News, at: Situation, draw: float) -> Decision:
    """The worker is gone, and its request may have rung."""
    if not at.lease_over or at.phase is not Phase.SENDING:
        return _ignore(news, at, Reason.LEASE_ALIVE)
    return _decide(news, at, _await(at, Phase.UNKNOWN, at.retry_owner, news, Reason.WORKER_LOST), Phase.UNKNOWN)


def _overdue(news: News, at: Situation, draw: float) -> Decision:
    if at.phase not in (Phase.UNKNOWN, Phase.ACCEPTED) or at.resolve_by is None or at.now < at.resolve_by:
        return _ignore(news, at, Reason.NOT_OVERDUE)
    return _decide(news, at, Finish(State.TIMEOUT, None, Reason.NO_NEWS), Phase.ABANDONED)


_HANDLERS: Mapping[Disposition, Callable[[News, Situation, float], Decision]] = {
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


def _late(news: News, at: Situation) -> Decision:
    """News about a closed attempt: it may end a row that is not dialled again yet; it never causes a dial."""
    outcome = news.outcome
    if outcome.disposition not in _TELLS_A_RESULT or outcome.state in (State.TIMEOUT, State.DUP):
        return _ignore(news, at, Reason.LATE)
    if at.phase is Phase.NOT_SENT:
        return _ignore(news, at, Reason.IMPOSSIBLE)
    if at.phase is Phase.RESULT and outcome.result is at.attempt_result:
        return _ignore(news, at, Reason.DUPLICATE)
    # T13: a provider that contradicts itself before we dialled again: the row ends with what it says now
    ours = at.state in WAITING and at.retry_owner is RetryOwner.US
    now_reached = outcome.result in REACHED and at.attempt_result not in REACHED
    if at.phase is Phase.RESULT and not (at.is_latest and ours) and not now_reached:
        return _ignore(news, at, Reason.CONFLICT)
    final = outcome.state if outcome.disposition is Disposition.SCREENED and outcome.state else State.FINISHED
    amends = at.is_latest and (at.state is State.TIMEOUT or ours)
    was_uncharged = at.phase is Phase.REJECTED or at.attempt_result is Result.UNDIALED
    charge = int(was_uncharged and outcome.disposition is not Disposition.SCREENED)
    step: Step = Finish(final, outcome.result, Reason.LATE_RESULT, charge) if amends else Ignore(Reason.RECORDED)
    return _decide(news, at, step, Phase.RESULT, outcome.result)
