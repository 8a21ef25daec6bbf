"""What crosses the wire to and from CallFire, 1.1 (XML and JSON) and v2: tolerant when read, strict when written.

The generations tell the same things under other names, so one model reads both.
"""

from collections.abc import Mapping
from contextlib import nullcontext, suppress
from datetime import datetime
from typing import Annotated, Any

from pydantic import AliasChoices, BeforeValidator, Field

from dispatcher.domain.errors import PayloadError
from dispatcher.domain.results import CallReport, Channel, Disposition, Outcome
from dispatcher.providers.callfire.outcomes import CODES, of_action
from dispatcher.providers.payload import read_instant, read_model, read_ms, read_number
from dispatcher.providers.payload_model import (
    LONGEST_WORD,
    Flag,
    Number,
    OptionalText,
    PayloadModel,
    Text,
    list_of,
    named,
)

KEY_ATTRIBUTE = "dispatcher_key"
_TEXT_ONLY = frozenset({"SENT", "RECEIVED", "DNT", "TOO_BIG", "DO NOT TEXT", "MSG TOO BIG"})


def _time(value: Any) -> datetime | None:
    return read_instant(value, naive=True) if isinstance(value, str) else read_ms(value)


Time = Annotated[datetime | None, BeforeValidator(_time)]
"""ISO 8601 (1.1) or unix milliseconds (v2); junk of the published samples is no time."""


class DialRecord(PayloadModel):
    """One dial of an action."""

    # 'callResult' and 'textResult' stand in several published samples
    word: OptionalText = named("Result", "result", "callResult", "textResult")
    cost: Number = named("BilledAmount", "billedAmount")
    answered_at: Time = named("AnswerTime", "answerTime")
    finished_at: Time = named("FinishTime", "finishTime")
    duration: Number = named("Duration", "duration")
    message: str | None = named("Message", "message")


class Action(PayloadModel):
    """A call or a text."""

    id: Text = Field(validation_alias=AliasChoices("@id", "id", "Id"))
    state: Text = Field(validation_alias=AliasChoices("State", "state"))
    to: Any = named("ToNumber", "toNumber")
    from_: Any = named("FromNumber", "fromNumber")
    final: OptionalText = named("FinalResult", "finalResult", "finalCallResult", "finalTextResult")
    attributes: dict[str, OptionalText] | None = None
    inbound: Flag = named("Inbound", "inbound", default=False)
    agent: Flag = named("AgentCall", "agentCall", default=False)
    created: Time = named("Created", "created")
    modified: Time = named("Modified", "modified")
    broadcast: OptionalText = named("BroadcastId")
    message: str | None = named("Message", "message")
    records: Annotated[tuple[DialRecord, ...], BeforeValidator(list_of)] = named(
        "CallRecord", "TextRecord", "records", default=()
    )

    @property
    def last(self) -> DialRecord | None:
        """Its last dial."""
        return self.records[-1] if self.records else None

    @property
    def key(self) -> str | None:
        """Our key, where they give it back: an attribute of the action (v2), or of its number (1.1 XML)."""
        if isinstance(self.to, Mapping) and isinstance(key := self.to.get(f"@{KEY_ATTRIBUTE}"), str):
            return key[:LONGEST_WORD]
        return (self.attributes or {}).get(KEY_ATTRIBUTE)


class Problem(PayloadModel):
    """An error's body; the status inside it is not to be trusted (a fixture says 100)."""

    message: str = Field(validation_alias=AliasChoices("Message", "message"))
    code: int | None = named("internalCode")


class Webhook(PayloadModel):
    """A subscription as they list it."""

    id: Text = Field(validation_alias=AliasChoices("@id", "id", "Id"))
    address: str | None = named("Endpoint", "endpoint", "callback")
    """Whole: it is compared."""
    event: OptionalText = named("TriggerEvent", "triggerEvent", "resource")


def outcome_of(action: Action) -> Outcome:
    """What one action's state and result mean."""
    last = action.last
    mapping = of_action(action.state, action.final, last.word if last else None)
    return Outcome(
        disposition=mapping.disposition,
        state=mapping.state,
        result=mapping.result,
        redials=mapping.redials,
        provider_call_id=action.id,
        raw_state=action.state,
        raw_result=action.final or (last.word if last else None),
        answered_at=last.answered_at if last else None,
        finished_at=last.finished_at if last else None,
        duration_s=last.duration if last else None,
        cost=last.cost if last else None,
    )


def report_of(action: Action, channel: Channel | None = None) -> CallReport:
    """One action as a report that must still be matched to an attempt."""
    return CallReport(
        outcome=outcome_of(action),
        key=action.key,
        to=read_number(action.to),
        request_id=action.broadcast,
        channel=channel or _channel_of(action),
        created_at=action.created,
        inbound=action.inbound,
        records=len(action.records),
    )


def _channel_of(action: Action) -> Channel:
    """A list of actions does not say which they are; only texts have a message or these results."""
    words = {action.final, *(record.word for record in action.records)}
    return Channel.TEXT if action.message is not None or words & _TEXT_ONLY else Channel.VOICE


def read_actions(documents: Any, channel: Channel | None = None) -> tuple[CallReport, ...]:
    """Calls or texts; the calls of agents are none of ours, and other people's may look as they like.

    Raises PayloadError for one that stands alone.
    """
    items = list_of(documents)
    found = []
    for document in items:
        with suppress(PayloadError) if len(items) > 1 else nullcontext():
            found.append(read_model(Action, document))
    return tuple(report_of(action, channel) for action in found if not action.agent)


def of_status(table: str, status: str | None) -> Outcome:
    """What the state of a broadcast or a batch means for the account that runs it."""
    mapping = CODES.of(table, status or "")
    stopped = mapping.disposition is Disposition.ACCOUNT_STOP
    return Outcome(disposition=mapping.disposition, detail=f"BROADCAST_{status}"[:LONGEST_WORD] if stopped else None)


def recipient(to: str, caller_id: str | None, texts: Mapping[str, str], key: str) -> dict[str, Any]:
    """One v2 CallRecipient or TextRecipient: numbers without '+', our key among the attributes."""
    sender = {"fromNumber": caller_id.lstrip("+")} if caller_id else {}
    return {"phoneNumber": to.lstrip("+"), **sender, **texts, "attributes": {KEY_ATTRIBUTE: key}}
