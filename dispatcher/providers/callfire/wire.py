"""What crosses the wire to and from CallFire v2: tolerant when read, strict when written."""

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict

KEY_ATTRIBUTE = "dispatcher_key"
LONGEST_WORD = 64
"""No id, number or word of theirs is longer; what is longer is cut, so that it fits wherever it is kept."""


def _text(value: Any) -> Any:
    text = str(value) if isinstance(value, int) and not isinstance(value, bool) else value
    return text[:LONGEST_WORD] if isinstance(text, str) else text


def _or_none(value: Any) -> Any:
    return None if value == "" else value


Text = Annotated[str, BeforeValidator(_text)]
"""Ids and numbers come as integers (above 2^53 too) or as strings."""
Number = Annotated[int | float | None, BeforeValidator(_or_none)]
"""Absent, null and an empty string are one."""


class _Wire(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


class Record(_Wire):
    """One dial of an action."""

    result: Text | None = None
    callResult: Text | None = None  # several published samples
    textResult: Text | None = None
    billedAmount: Number = None
    answerTime: Number = None
    finishTime: Number = None
    duration: Number = None

    @property
    def word(self) -> str | None:
        return self.result or self.callResult or self.textResult


def _list(value: Any) -> Any:
    if value in (None, ""):
        return ()
    return (value,) if isinstance(value, dict) else value


Records = Annotated[tuple[Record, ...], BeforeValidator(_list)]
"""One, several or none: a list, an object, null or an empty string."""


class Action(_Wire):
    """A call."""

    id: Text
    toNumber: Text | None = None
    fromNumber: Text | None = None
    state: Text
    finalCallResult: Text | None = None
    attributes: dict[str, Text | None] | None = None
    inbound: bool = False
    created: Number = None
    records: Records = ()

    @property
    def result_word(self) -> str | None:
        """The final result, else the last dial's."""
        return self.finalCallResult or (self.records[-1].word if self.records else None)

    @property
    def key(self) -> str | None:
        """Our key, where they give it back."""
        return (self.attributes or {}).get(KEY_ATTRIBUTE)


class Actions(_Wire):
    """A list of calls, or a page of one."""

    items: tuple[Any, ...]


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
