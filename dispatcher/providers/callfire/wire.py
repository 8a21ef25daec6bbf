"""What crosses the wire to and from CallFire v2: tolerant when read, strict when written."""

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field


def _text(value: Any) -> Any:
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


Text = Annotated[str, BeforeValidator(_text)]
"""Ids and numbers come as integers (above 2^53 too) or as strings."""


class _Wire(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


class Record(_Wire):
    """One dial of an action."""

    result: str | None = None
    callResult: str | None = None  # several published samples
    textResult: str | None = None
    billedAmount: float | None = None
    answerTime: int | float | None = None
    finishTime: int | float | None = None
    duration: float | None = None

    @property
    def word(self) -> str | None:
        return self.result or self.callResult or self.textResult


class Action(_Wire):
    """A call."""

    id: Text
    toNumber: Text | None = None
    fromNumber: Text | None = None
    state: str
    finalCallResult: str | None = None
    attributes: dict[str, Text] = Field(default_factory=dict)
    inbound: bool = False
    created: int | float | None = None
    records: tuple[Record, ...] = ()

    @property
    def result_word(self) -> str | None:
        """The final result, else the last dial's."""
        return self.finalCallResult or (self.records[-1].word if self.records else None)


class Actions(_Wire):
    """A list of calls, or a page of one."""

    items: tuple[Action, ...]
    totalCount: int | None = None


class Event(_Wire):
    """One event of a webhook."""

    resourceType: str
    eventType: str | None = None
    resource: dict[str, Any]


class Webhook(_Wire):
    """What is posted to us."""

    events: tuple[Event, ...]


class Problem(_Wire):
    """An error's body; `httpStatusCode` is not to be trusted."""

    message: str
    internalCode: int | None = None


class Subscription(_Wire):
    """A webhook as they list it."""

    id: Text
    callback: str | None = None


class Subscriptions(_Wire):
    items: tuple[Subscription, ...] = ()


def recipient(to: str, caller_id: str, text: str, key: str) -> dict[str, Any]:
    """One CallRecipient: numbers without '+', our key among the attributes."""
    return {
        "phoneNumber": to.lstrip("+"),
        "fromNumber": caller_id.lstrip("+"),
        "liveMessage": text,
        "machineMessage": text,
        "attributes": {KEY_ATTRIBUTE: key},
    }


KEY_ATTRIBUTE = "dispatcher_key"
