"""May a lost request be sent again: every rule of the permit is asked, or stands in the table of those that are not."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from dispatcher.domain.account import AccountState
from dispatcher.domain.campaign import CampaignState
from dispatcher.domain.permitting import Candidate, Hold, PermitContext, Terms, holds, refusals
from dispatcher.domain.reasons import Reason
from dispatcher.domain.resending import NOT_ASKED, ResendCandidate, ResendHold, resend_hold
from dispatcher.domain.results import Channel, Result
from dispatcher.domain.states import Phase
from tests.factories import make_policy, number

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
WINDOW = {"timezone": "UTC", "open": "09:00", "close": "17:00"}
ROW = Candidate(on_dnc=False, reached=None, permits=1, dials=1, first_dialled_at=NOW, last_result=None)
CONTEXT = PermitContext(
    now=NOW,
    shift_is_live=True,
    account_state=AccountState.OPEN,
    throttled_until=None,
    campaign_state=CampaignState.RUNNING,
    policy_version=1,
    account_capacity=1,
    campaign_busy=0,
)
CALL = ResendCandidate(
    key="0123456789abc",
    to=number(1),
    caller_id="+12025550199",
    channel=Channel.VOICE,
    phase=Phase.UNKNOWN,
    permit_at=NOW - timedelta(minutes=1),
    dedupe_window=timedelta(minutes=10),
    row=ROW,
    context=CONTEXT,
    policy_version=1,
    policy=make_policy(window=WINDOW),
)
FORBIDDEN: list[tuple[Hold | Reason | ResendHold, dict[str, Any]]] = [
    (ResendHold.NOT_IN_DOUBT, {"phase": Phase.ACCEPTED}),
    (ResendHold.NOT_IN_DOUBT, {"phase": Phase.SENDING}),
    (ResendHold.TOO_OLD, {"dedupe_window": None}),
    (ResendHold.TOO_OLD, {"permit_at": NOW - timedelta(minutes=5)}),
    (ResendHold.NUMBER_REFUSED, {"policy": make_policy(regions_allowed=["CA"])}),
    (Hold.CAMPAIGN_NOT_RUNNING, {"context": replace(CONTEXT, campaign_state=CampaignState.PAUSED)}),
    (Hold.ACCOUNT_STOPPED, {"context": replace(CONTEXT, account_state=AccountState.STOPPED)}),
    (Hold.THROTTLED, {"context": replace(CONTEXT, throttled_until=NOW + HOUR)}),
    (Hold.WINDOW_CLOSED, {"policy": make_policy(window=WINDOW | {"close": "11:00"})}),
    (Reason.DNC_AT_PERMIT, {"row": replace(ROW, on_dnc=True)}),
    (Reason.REACHED_BEFORE, {"row": replace(ROW, reached=Result.LA)}),
    (Reason.DEADLINE, {"row": replace(ROW, first_dialled_at=NOW - 100 * HOUR)}),
]
ALLOWED: dict[Hold | Reason, dict[str, Any]] = {
    Hold.SHIFT_VOID: {"context": replace(CONTEXT, shift_is_live=False)},
    Hold.POLICY_CHANGED: {"policy_version": 2},
    Hold.IN_FLIGHT_FULL: {"context": replace(CONTEXT, account_capacity=0)},
    Reason.PUT_BACK_LIMIT: {"row": replace(ROW, permits=20)},
    Reason.MAX_DIALS: {"row": replace(ROW, dials=3)},
}


def test_a_call_in_doubt_may_be_sent_again() -> None:
    assert resend_hold(CALL) is None


@pytest.mark.parametrize(("why", "changes"), FORBIDDEN, ids=[f"{why} {i}" for i, (why, _) in enumerate(FORBIDDEN)])
def test_what_forbids_it(why: Hold | Reason | ResendHold, changes: dict[str, Any]) -> None:
    assert resend_hold(replace(CALL, **changes)) is why


@pytest.mark.parametrize("rule", ALLOWED)
def test_what_is_not_asked(rule: Hold | Reason) -> None:
    assert resend_hold(replace(CALL, **ALLOWED[rule])) is None


def test_every_rule_of_the_permit_is_asked_or_says_why_not() -> None:
    terms = Terms.of(CALL.policy, 1, NOW)
    rules = {*holds(CONTEXT, terms), *refusals(ROW, CONTEXT, terms)}
    assert rules - {why for why, _ in FORBIDDEN} == set(NOT_ASKED) == set(ALLOWED)
