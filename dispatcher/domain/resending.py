"""May a lost request be sent again, byte for byte? The rules of the permit are asked anew for each of its calls.

A resend is not a new dial: where the first request arrived, the provider recognises the second, and where it did not,
nobody was rung. So the rules that count permits and dials, or that belong to a shift, are not asked: see `NOT_ASKED`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum

from dispatcher.domain.campaign import Policy
from dispatcher.domain.permitting import Candidate, Hold, PermitContext, Terms, number_refusal
from dispatcher.domain.permitting import holds as permit_holds
from dispatcher.domain.permitting import refusals as permit_refusals
from dispatcher.domain.reasons import Reason
from dispatcher.domain.results import Channel
from dispatcher.domain.states import Phase

NOT_ASKED: Mapping[Hold | Reason, str] = {
    Hold.SHIFT_VOID: "no shift sends it, and nobody else can: the request was taken for half a minute",
    Hold.POLICY_CHANGED: "the terms of the newest version are asked, whichever the bytes were made under",
    Hold.IN_FLIGHT_FULL: "the call is counted among the calls in flight already",
    Reason.PUT_BACK_LIMIT: "no permit is given",
    Reason.MAX_DIALS: "the dial is counted already",
}
"""Rules of the permit that a resend does not ask, and why."""
SHARE_OF_WINDOW = 2
"""Nothing is sent again after half of the time for which the provider was proved to recognise a request."""
MOST_TRIES = 3
RETRY_AFTER = timedelta(seconds=30)
"""A request that was taken is not given out again before this; after a crash another worker takes it."""


class ResendHold(StrEnum):
    """What forbids a resend beside the permit's rules."""

    NOT_IN_DOUBT = "NOT_IN_DOUBT"
    """Its result is known, or it is known to have arrived."""
    TOO_OLD = "TOO_OLD"
    """The provider may have forgotten the first request."""
    NUMBER_REFUSED = "NUMBER_REFUSED"


@dataclass(frozen=True, slots=True, kw_only=True)
class ResendCandidate:
    """One call of a lost request, read under the locks of a permit."""

    key: str
    to: str = field(repr=False)
    caller_id: str
    channel: Channel
    phase: Phase
    permit_at: datetime
    dedupe_window: timedelta | None
    row: Candidate
    context: PermitContext
    policy_version: int
    policy: Policy


def resend_hold(call: ResendCandidate) -> Hold | Reason | ResendHold | None:
    """What forbids that this call is asked for again; None when nothing does."""
    terms = Terms.of(call.policy, call.policy_version, call.context.now)
    rules: dict[Hold | Reason | ResendHold, bool] = {
        ResendHold.NOT_IN_DOUBT: call.phase is not Phase.UNKNOWN,
        ResendHold.TOO_OLD: _is_too_old(call),
        ResendHold.NUMBER_REFUSED: number_refusal(call.to, call.policy) is not None,
    }
    rules.update(permit_holds(call.context, terms).items())
    rules.update(permit_refusals(call.row, call.context, terms).items())
    return next((rule for rule, applies in rules.items() if applies and rule not in NOT_ASKED), None)


def _is_too_old(call: ResendCandidate) -> bool:
    if call.dedupe_window is None:
        return True
    return call.context.now >= call.permit_at + call.dedupe_window / SHARE_OF_WINDOW
