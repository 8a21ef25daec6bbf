"""The one door: every news in every situation, and the promises that hold in all of them."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dispatcher.domain.campaign import CampaignState
from dispatcher.domain.reasons import Fault
from dispatcher.domain.results import REACHED, AttemptUpdate, Disposition, Outcome, Result, UpdateSource
from dispatcher.domain.settling import SHORTEST_LOOKUP_INTERVAL, next_step
from dispatcher.domain.states import FINAL, LEGAL_MOVES, OPEN, WAITING, Phase, RetryOwner, State
from dispatcher.domain.steps import AttemptContext, Decision, Finish, Ignore, KeepOpen, Redial, Requeue
from tests.factories import make_policy

D = Disposition
NOW = datetime(2026, 1, 5, 15, tzinfo=UTC)
KEY = "0123456789abc"
SENT = AttemptContext(
    key=KEY,
    part=0,
    destination_id=1,
    campaign_id=1,
    e164="+12025550101",
    phase=Phase.SENDING,
    is_latest=True,
    permit_at=NOW - timedelta(seconds=1),
    lease_over=False,
    lookups=0,
    result_deadline=None,
    attempt_result=None,
    state=State.SELECTED,
    retry_owner=RetryOwner.DISPATCHER,
    permits=1,
    dials=1,
    due_at=NOW - timedelta(hours=1),
    first_dialled_at=NOW - timedelta(seconds=1),
    last_result=None,
    campaign_state=CampaignState.RUNNING,
    policy=make_policy(),
    on_dnc=False,
    now=NOW,
    version=("1", "1"),
)
ACCEPTED = replace(SENT, phase=Phase.ACCEPTED, result_deadline=NOW + timedelta(hours=1))
UNKNOWN = replace(SENT, phase=Phase.UNKNOWN, result_deadline=NOW + timedelta(minutes=30))
THEIRS = replace(ACCEPTED, state=State.CALLBACK, retry_owner=RetryOwner.PROVIDER)
ABANDONED = replace(SENT, phase=Phase.ABANDONED, state=State.TIMEOUT)


def decide(
    context: AttemptContext,
    disposition: D,
    result: Result | None = None,
    source: UpdateSource = UpdateSource.POSTBACK,
    **details: Any,
) -> Decision:
    outcome = Outcome(disposition=disposition, result=result, **details)
    return next_step(AttemptUpdate(KEY, outcome, source), context, 0.5)


def named(decision: Decision) -> str:
    match decision.step:
        case Finish(state, result, reason):
            return f"{state} {result} {reason}"
        case Redial(due_at):
            return f"Redial in {(due_at - NOW).total_seconds():g} s"
        case Requeue(due_at, reason):
            return f"PutBack {reason} in {(due_at - NOW).total_seconds():g} s"
        case KeepOpen(owner, next_lookup_at, result_deadline):
            return (
                f"Await {owner} look {(next_lookup_at - NOW).total_seconds():g} "
                f"until {(result_deadline - NOW).total_seconds():g}"
            )
        case Ignore(why):
            return f"Ignore {why}"


@pytest.mark.parametrize(
    ("before", "step"), [(Result.BUSY, "Redial in 300 s"), (Result.NO_ANS, "FINISHED NO_ANS NOT_RETRIED")]
)
def test_who_rang_before_they_gave_up_is_not_undialled(before: Result, step: str) -> None:
    undialled = Outcome(disposition=D.RETRYABLE, result=Result.UNDIALED)
    decision = next_step(AttemptUpdate(KEY, undialled, UpdateSource.LOOKUP), replace(THEIRS, last_result=before), 0.5)
    assert named(decision) == step


@pytest.mark.parametrize(
    ("disposition", "at_first", "at_fifth"),
    [(D.NOT_SENT, -3600, 2), (D.THROTTLE, 5, 10), (D.ACCOUNT_STOP, 1, 2), (D.CONFIG_STOP, 10, 10)],
)
def test_permits_for_nothing_come_ever_more_seldom(disposition: D, at_first: int, at_fifth: int) -> None:
    def wait(permits: int) -> float:
        context = replace(SENT, permits=permits, dials=1)
        step = next_step(AttemptUpdate("k", Outcome(disposition=disposition), UpdateSource.SUBMIT), context, 0.5).step
        assert isinstance(step, Requeue)
        return (step.due_at - NOW).total_seconds()

    assert {wait(n) for n in range(1, 6)} == {at_first}
    assert wait(6) == at_fifth
    assert wait(19) == (900 if disposition is not D.CONFIG_STOP else 10)


@pytest.mark.parametrize("lookups", range(4))
def test_short_timeouts_ask_no_more_often_than_every_two_seconds(lookups: int) -> None:
    policy = make_policy(timeouts={"unknown": "6s", "accepted": "6s", "provider_retry": "6s"})
    for phase, owner in ((Phase.UNKNOWN, RetryOwner.DISPATCHER), (Phase.ACCEPTED, RetryOwner.PROVIDER)):
        context = replace(UNKNOWN, phase=phase, retry_owner=owner, lookups=lookups, policy=policy)
        step = decide(context, D.RECONCILE, source=UpdateSource.LOOKUP).step
        assert isinstance(step, KeepOpen)
        assert step.next_lookup_at == NOW + SHORTEST_LOOKUP_INTERVAL


@pytest.mark.parametrize(
    ("context", "disposition", "result", "source", "step", "phase"),
    [
        (SENT, D.IN_FLIGHT, None, UpdateSource.SUBMIT, "Await US look 300 until 3600", Phase.ACCEPTED),
        (SENT, D.HOLD, None, UpdateSource.SUBMIT, "Await US look 300 until 3600", Phase.ACCEPTED),
        (SENT, D.UNKNOWN, None, UpdateSource.LOOKUP, "Await US look 300 until 3600", Phase.ACCEPTED),
        (SENT, D.RECONCILE, None, UpdateSource.SUBMIT, "Await US look 30 until 1800", Phase.UNKNOWN),
        (UNKNOWN, D.RECONCILE, None, UpdateSource.LOOKUP, "Await US look 120 until 1800", Phase.UNKNOWN),
        (UNKNOWN, D.IN_FLIGHT, None, UpdateSource.LOOKUP, "Await US look 300 until 3600", Phase.ACCEPTED),
        (ACCEPTED, D.RECONCILE, None, UpdateSource.SUBMIT, "Ignore LATE", Phase.ACCEPTED),
        (ACCEPTED, D.FINAL_SUCCESS, Result.LA, UpdateSource.POSTBACK, "FINISHED LA None", Phase.RESULT),
        (ACCEPTED, D.FINAL_FAILURE, Result.NO_ANS, UpdateSource.POSTBACK, "FINISHED NO_ANS None", Phase.RESULT),
        (ACCEPTED, D.RETRYABLE, Result.BUSY, UpdateSource.POSTBACK, "Redial in 300 s", Phase.RESULT),
        (ACCEPTED, D.RETRYABLE, Result.CARRIER_TEMP_ERROR, UpdateSource.LOOKUP, "Redial in 900 s", Phase.RESULT),
        (ACCEPTED, D.RETRYABLE, Result.UNDIALED, UpdateSource.POSTBACK, "PutBack UNDIALED in 10 s", Phase.RESULT),
        (ACCEPTED, D.PROVIDER_RETRY, None, UpdateSource.LOOKUP, "Await PROVIDER look 1800 until 86400", Phase.ACCEPTED),
        (THEIRS, D.IN_FLIGHT, None, UpdateSource.LOOKUP, "Await PROVIDER look 3600 until 3600", Phase.ACCEPTED),
        (THEIRS, D.FINAL_SUCCESS, Result.LA, UpdateSource.POSTBACK, "FINISHED LA None", Phase.RESULT),
        (THEIRS, D.RETRYABLE, Result.BUSY, UpdateSource.POSTBACK, "Redial in 300 s", Phase.RESULT),
        (SENT, D.THROTTLE, None, UpdateSource.SUBMIT, "PutBack THROTTLE in 5 s", Phase.REJECTED),
        (SENT, D.ACCOUNT_STOP, None, UpdateSource.SUBMIT, "PutBack ACCOUNT_STOP in 1 s", Phase.REJECTED),
        (SENT, D.CONFIG_STOP, None, UpdateSource.SUBMIT, "PutBack CONFIG_STOP in 10 s", Phase.REJECTED),
        (ACCEPTED, D.THROTTLE, None, UpdateSource.SUBMIT, "Ignore CONFLICT", Phase.ACCEPTED),
        (ACCEPTED, D.THROTTLE, None, UpdateSource.POSTBACK, "PutBack THROTTLE in 5 s", Phase.REJECTED),
        (ACCEPTED, D.ACCOUNT_STOP, None, UpdateSource.LOOKUP, "PutBack ACCOUNT_STOP in 1 s", Phase.REJECTED),
        (THEIRS, D.ACCOUNT_STOP, None, UpdateSource.POSTBACK, "Ignore CONFLICT", Phase.ACCEPTED),
        (SENT, D.NOT_SENT, None, UpdateSource.SUBMIT, "PutBack NOT_SENT in -3600 s", Phase.NOT_SENT),
        (UNKNOWN, D.NOT_SENT, None, UpdateSource.SUBMIT, "PutBack NOT_SENT in -3600 s", Phase.NOT_SENT),
        (ABANDONED, D.FINAL_SUCCESS, Result.LA, UpdateSource.POSTBACK, "FINISHED LA LATE_RESULT", Phase.RESULT),
        (ABANDONED, D.RETRYABLE, Result.BUSY, UpdateSource.POSTBACK, "FINISHED BUSY LATE_RESULT", Phase.RESULT),
        (ABANDONED, D.IN_FLIGHT, None, UpdateSource.POSTBACK, "Ignore LATE", Phase.ABANDONED),
    ],
)
def test_the_table(
    context: AttemptContext, disposition: D, result: Result | None, source: UpdateSource, step: str, phase: Phase
) -> None:
    decision = decide(context, disposition, result, source)
    assert (named(decision), decision.phase) == (step, phase)


def test_the_providers_timeout_is_final_unless_the_campaign_takes_over() -> None:
    lost: dict[str, Any] = {"disposition": D.FINAL_FAILURE, "state": State.TIMEOUT, "source": UpdateSource.LOOKUP}
    assert named(decide(ACCEPTED, **lost)) == "TIMEOUT None PROVIDER_TIMEOUT"
    assert named(decide(THEIRS, **lost)) == "TIMEOUT None PROVIDER_TIMEOUT"
    eager = replace(THEIRS, policy=make_policy(timeouts={"take_over": "1s"}))
    taken = decide(eager, **lost)
    assert (named(taken), taken.phase) == ("Redial in 0 s", Phase.ABANDONED)
    early = replace(eager, policy=make_policy(timeouts={"take_over": "2s"}))
    assert named(decide(early, **lost)) == "Await PROVIDER look 1 until 3600"
    for context in (replace(eager, dials=3), replace(eager, on_dnc=True)):
        assert isinstance(decide(context, **lost).step, Finish)


def test_the_reaper_never_puts_back_what_was_sent() -> None:
    over = replace(SENT, lease_over=True)
    assert isinstance(decide(over, D.LEASE_OVER, source=UpdateSource.REAPER).step, KeepOpen)
    assert named(decide(SENT, D.LEASE_OVER, source=UpdateSource.REAPER)) == "Ignore LEASE_ALIVE"


def test_charges() -> None:
    """What rang is charged and nothing else, whichever way it ends."""

    def dials(decision: Decision) -> int:
        assert decision.row
        return decision.row.dials - decision.context.dials

    throttled = decide(SENT, D.THROTTLE, source=UpdateSource.SUBMIT)
    assert throttled.row
    assert (dials(throttled), throttled.row.state, throttled.row.first_dialled_at) == (-1, State.READY, None)
    listed = decide(replace(SENT, on_dnc=True), D.NOT_SENT, source=UpdateSource.SUBMIT)
    assert (named(listed), dials(listed)) == ("DNC None DNC_BEFORE_RETRY", -1)
    refused = decide(SENT, D.NOT_SENT, source=UpdateSource.SUBMIT, state=State.INVALID, cause=Fault.PREMIUM)
    assert (named(refused), dials(refused), refused.phase) == ("INVALID None PREMIUM", -1, Phase.NOT_SENT)
    assert dials(decide(ACCEPTED, D.RETRYABLE, Result.BUSY)) == 0
    rejected = replace(SENT, phase=Phase.REJECTED, state=State.READY, dials=0, first_dialled_at=None)
    late = decide(rejected, D.FINAL_SUCCESS, Result.LA)
    assert late.row
    assert (dials(late), late.row.first_dialled_at) == (1, rejected.permit_at)
    assert dials(decide(ABANDONED, D.FINAL_SUCCESS, Result.LA)) == 0
    again = decide(replace(SENT, dials=2), D.NOT_SENT, source=UpdateSource.SUBMIT)
    assert again.row
    assert (again.row.state, again.row.first_dialled_at) == (State.CALLBACK, SENT.first_dialled_at)


SITUATIONS = st.builds(
    AttemptContext,
    key=st.just(KEY),
    part=st.just(0),
    destination_id=st.just(1),
    campaign_id=st.just(1),
    e164=st.just("+12025550101"),
    phase=st.sampled_from(Phase),
    is_latest=st.booleans(),
    permit_at=st.sampled_from([None, NOW - timedelta(seconds=1), NOW - timedelta(days=2)]),
    lease_over=st.booleans(),
    lookups=st.integers(0, 9),
    result_deadline=st.sampled_from([None, NOW - timedelta(1), NOW + timedelta(1)]),
    attempt_result=st.sampled_from([None, Result.LA, Result.BUSY]),
    state=st.sampled_from([State.SELECTED, State.CALLBACK, State.READY, State.TIMEOUT, State.FINISHED, State.DNC]),
    retry_owner=st.sampled_from(RetryOwner),
    permits=st.integers(0, 20),
    dials=st.integers(0, 5),
    due_at=st.just(NOW - timedelta(hours=1)),
    first_dialled_at=st.sampled_from([None, NOW - timedelta(hours=49), NOW]),
    last_result=st.sampled_from([None, Result.BUSY]),
    campaign_state=st.sampled_from(CampaignState),
    policy=st.sampled_from([make_policy(), make_policy(timeouts={"take_over": "1s"})]),
    on_dnc=st.booleans(),
    now=st.just(NOW),
    version=st.just(("1", "1")),
)
NEWS = st.builds(
    lambda d, r, s, state: AttemptUpdate(KEY, Outcome(disposition=d, result=r, state=state), s),
    st.sampled_from(Disposition),
    st.sampled_from([None, *Result]),
    st.sampled_from(UpdateSource),
    st.sampled_from([None, State.DNC, State.INVALID, State.TIMEOUT]),
).filter(
    lambda n: (
        (n.source is UpdateSource.REAPER) == (n.outcome.disposition is D.LEASE_OVER)
        and (n.source is UpdateSource.RESOLVER) == (n.outcome.disposition is D.OVERDUE)
    )
)


def can_be(context: AttemptContext) -> bool:
    """Situations that the database lets exist."""
    open_phase = context.phase in OPEN
    theirs = context.retry_owner is RetryOwner.PROVIDER
    return (
        (context.permit_at is None)
        == (context.phase is Phase.NOT_SENT and context.permits == 0)
        == (context.permits == 0)
        and (context.phase is not Phase.REJECTED or context.dials < context.permits)
        and (not open_phase or context.is_latest)
        and (context.dials <= context.permits and (not open_phase or context.dials > 0))
        and (
            not open_phase
            or (context.state is State.CALLBACK and theirs)
            or (context.state is State.SELECTED and not theirs)
        )
        and (not theirs or (context.state is State.CALLBACK and (not open_phase or context.phase is Phase.ACCEPTED)))
        and (context.phase not in (Phase.UNKNOWN, Phase.ACCEPTED) or context.result_deadline is not None)
        and (context.attempt_result is not None) == (context.phase is Phase.RESULT)
    )


@settings(max_examples=1000, suppress_health_check=[HealthCheck.filter_too_much])
@given(NEWS, SITUATIONS.filter(can_be), st.floats(0, 1, exclude_max=True))
def test_promises_that_hold_whatever_we_hear(news: AttemptUpdate, context: AttemptContext, fraction: float) -> None:
    decision = next_step(news, context, fraction)
    step = decision.step
    dials_again = isinstance(step, Redial | Requeue)
    if context.phase not in OPEN:
        assert not dials_again, "news about a closed attempt never causes a dial"
    if dials_again:
        assert decision.phase not in OPEN, "nobody is dialled again over an open attempt"
        assert not context.on_dnc
        assert context.campaign_state is not CampaignState.ABORTED
        assert news.outcome.result not in REACHED - {Result.AM} or isinstance(step, Requeue)
        assert context.permits < 20
    if isinstance(step, Requeue) and context.phase is Phase.SENDING:
        unrung = {D.NOT_SENT, D.THROTTLE, D.ACCOUNT_STOP, D.CONFIG_STOP, D.RETRYABLE}
        assert news.outcome.disposition in unrung, "what may have rung is not put back"
    if isinstance(step, Finish):
        assert step.state in FINAL
        assert context.state is step.state or (context.state, step.state, decision.actor) in LEGAL_MOVES
        assert context.state not in FINAL - {State.TIMEOUT}
    if isinstance(step, Requeue):
        assert context.state is State.SELECTED
        assert all((State.SELECTED, to, decision.actor) in LEGAL_MOVES for to in WAITING)
    if isinstance(step, Redial) and context.state is State.SELECTED:
        assert (State.SELECTED, State.CALLBACK, decision.actor) in LEGAL_MOVES
    if isinstance(step, KeepOpen):
        assert context.phase in OPEN
        assert decision.phase in OPEN
        assert step.next_lookup_at >= NOW
    assert (decision.result is not None) == (decision.phase is Phase.RESULT)
    if decision.row:
        assert 0 <= decision.row.dials <= context.permits


def test_a_duplicate_at_the_provider_is_asked_about_because_we_hold_no_other() -> None:
    decision = decide(SENT, D.SCREENED, Result.UNDIALED, UpdateSource.SUBMIT, state=State.DUP)
    assert (named(decision), decision.phase) == ("Await US look 30 until 1800", Phase.UNKNOWN)
    assert named(decide(ABANDONED, D.SCREENED, Result.UNDIALED, state=State.DUP)) == "Ignore LATE"


@pytest.mark.parametrize(
    ("dials", "step"), [(1, "Redial in 900 s"), (2, "FINISHED CARRIER_TEMP_ERROR RETRIES_OF_RESULT_USED_UP")]
)
def test_news_may_allow_fewer_redials_than_the_policy(dials: int, step: str) -> None:
    context = replace(ACCEPTED, dials=dials, permits=dials)
    assert named(decide(context, D.RETRYABLE, Result.CARRIER_TEMP_ERROR, redials=1)) == step


@pytest.mark.parametrize(
    ("disposition", "result", "step"),
    [
        (D.RETRYABLE, Result.BUSY, "FINISHED BUSY ANSWERED"),
        (D.RETRYABLE, Result.UNDIALED, "FINISHED LA ANSWERED"),
        (D.FINAL_FAILURE, Result.INTERNAL_ERROR, "FINISHED INTERNAL_ERROR ANSWERED"),
        (D.THROTTLE, None, "FINISHED LA ANSWERED"),
        (D.FINAL_SUCCESS, Result.LA, "FINISHED LA None"),
    ],
)
def test_who_answered_is_never_dialled_again(disposition: D, result: Result | None, step: str) -> None:
    assert named(decide(ACCEPTED, disposition, result, answered_at=NOW)) == step


@pytest.mark.parametrize(
    ("disposition", "permits", "wait"),
    [
        (D.THROTTLE, 1, "THROTTLE in 5 s"),
        (D.THROTTLE, 5, "THROTTLE in 5 s"),
        (D.THROTTLE, 8, "THROTTLE in 40 s"),
        (D.ACCOUNT_STOP, 7, "ACCOUNT_STOP in 4 s"),
        (D.ACCOUNT_STOP, 19, "ACCOUNT_STOP in 900 s"),
        (D.CONFIG_STOP, 19, "CONFIG_STOP in 10 s"),
    ],
)
def test_trouble_that_lasts_does_not_use_up_the_permits(disposition: D, permits: int, wait: str) -> None:
    assert named(decide(replace(SENT, permits=permits), disposition, None, UpdateSource.SUBMIT)) == f"PutBack {wait}"
