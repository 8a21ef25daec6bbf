"""A campaign: one dialling job with its policy. The policy is frozen per version; attempts name theirs."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, time, timedelta
from enum import StrEnum
from functools import cached_property
from typing import Annotated, Any, Self
from zoneinfo import ZoneInfo

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    ValidationError,
    field_validator,
    model_validator,
)

from dispatcher.domain.errors import CampaignFileError, NotFound
from dispatcher.domain.phone import SUPPORTED_REGIONS, is_e164
from dispatcher.domain.results import REACHED, Channel, Result, read_result
from dispatcher.domain.retry import DEFAULT_RULES, RetryPolicy, RetryRule
from dispatcher.domain.windows import Window, read_days

_SPAN = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
LONGEST_SPAN = timedelta(days=3660)
_SHORT_CODE = re.compile(r"[1-9][0-9]{4,5}")
_UNIT_S = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}


def read_span(text: object) -> timedelta:
    """A length of time as campaign files write it: '90s', '5m', '48h', '1h30m'. Raises ValueError."""
    if isinstance(text, timedelta):
        return text
    parts = _SPAN.findall(str(text))
    if not parts or "".join(a + b for a, b in parts) != str(text).replace(" ", ""):
        raise ValueError("write a length of time like '30s', '5m', '48h' or '1h30m'")
    seconds = sum(float(n) * _UNIT_S[unit] for n, unit in parts)
    if seconds > LONGEST_SPAN.total_seconds():
        raise ValueError(f"must be at most {LONGEST_SPAN.days}d")
    return timedelta(seconds=seconds)


def _write_span(span: timedelta) -> str:
    return f"{span.total_seconds():.6f}".rstrip("0").rstrip(".") + "s"


def _positive(span: timedelta) -> timedelta:
    if span <= timedelta(0):
        raise ValueError("must be longer than 0")
    return span


Span = Annotated[timedelta, BeforeValidator(read_span), AfterValidator(_positive), PlainSerializer(_write_span)]


class CampaignState(StrEnum):
    """DRAFT -> RUNNING <-> PAUSED -> DONE | ABORTED."""

    DRAFT = "DRAFT"
    RUNNING = "RUNNING"
    PAUSED = "PAUSED"
    DONE = "DONE"
    ABORTED = "ABORTED"


BY_CONFIG = "config"
"""Begins the reason of a campaign that was paused because the provider refuses its requests; its word follows."""

CAMPAIGN_MOVES: Mapping[CampaignState, frozenset[CampaignState]] = {
    CampaignState.RUNNING: frozenset({CampaignState.DRAFT, CampaignState.PAUSED}),
    CampaignState.PAUSED: frozenset({CampaignState.RUNNING}),
    CampaignState.ABORTED: frozenset({CampaignState.DRAFT, CampaignState.RUNNING, CampaignState.PAUSED}),
    CampaignState.DONE: frozenset({CampaignState.RUNNING}),
}
"""Which states a campaign may come from, by the state it goes to."""


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Columns(_Section):
    """Which column of the file holds what. What is not said is guessed from the columns' names."""

    number: str | None = None
    variables: Mapping[str, str] = Field(default_factory=dict)
    """A variable of the text -> the column that holds it, where their names differ."""
    keep: tuple[str, ...] = ()
    """Columns that the text does not need, kept for exports."""


class Message(_Section):
    """What the called person hears or reads: a text, a recording, or what a flow at the provider says."""

    text: str | None = Field(default=None, min_length=1, max_length=2000)
    voice: str | None = Field(default=None, max_length=40, pattern=r"^\w+$")
    """Who speaks the text, in the provider's words."""
    language: str | None = Field(default=None, pattern=r"^[a-z]{2}(-[A-Z]{2})?$")
    audio_url: str | None = Field(default=None, max_length=2048, pattern=r"^https?://[A-Za-z0-9.:-]+/[A-Za-z0-9._/-]+$")
    """A recording, where the provider fetches it; we never do."""
    flow: str | None = Field(default=None, max_length=64, pattern=r"^[\w-]+$")
    """A flow that was drawn at the provider; it may use the text and the variables below."""
    flow_variables: tuple[str, ...] = ()

    @field_validator("text")
    @classmethod
    def _braces_match(cls, text: str | None) -> str | None:
        left = re.sub(r"\{[^{}\s][^{}]*\}", "", text or "")
        if "{" in left or "}" in left:
            raise ValueError("a brace is not closed or holds no column's name; write variables like {name}")
        return text

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if self.text and self.audio_url:
            raise ValueError("text and audio_url cannot both be said; leave one out")
        if not (self.text or self.audio_url or self.flow):
            raise ValueError("say what people hear: text, audio_url or flow")
        return self

    @cached_property
    def variables(self) -> frozenset[str]:
        """The columns whose values go to the provider."""
        return frozenset(re.findall(r"\{([^{}]*)\}", self.text or "")) | frozenset(self.flow_variables)

    def render(self, values: Mapping[str, str]) -> str:
        """The text for one destination."""
        return re.sub(r"\{([^{}]*)\}", lambda m: values[m[1]], self.text or "")


def _read_time(text: object) -> time:
    if isinstance(text, time):
        return text
    match = re.fullmatch(r"(\d{1,2}):(\d{2})", str(text))
    if match and str(text) == "24:00":
        return time.max
    if not match or int(match[1]) > 23 or int(match[2]) > 59:
        raise ValueError("write a time of day like '09:00'")
    return time(int(match[1]), int(match[2]))


def _write_time(at: time) -> str:
    return "24:00" if at == time.max else at.strftime("%H:%M")


TimeOfDay = Annotated[time, BeforeValidator(_read_time), PlainSerializer(_write_time)]


class WindowSettings(_Section):
    """[window]: when the campaign may ring."""

    timezone: str
    days: str = "mon-sun"
    open: TimeOfDay = time(0, 0)
    close: TimeOfDay = time.max

    @field_validator("timezone")
    @classmethod
    def _known(cls, name: str) -> str:
        try:
            ZoneInfo(name)
        except (KeyError, ValueError, OSError):
            raise ValueError("no such time zone; write for example 'America/New_York'") from None
        return name

    @field_validator("days")
    @classmethod
    def _readable(cls, text: str) -> str:
        read_days(text)
        return text

    @field_validator("close")
    @classmethod
    def _after_open(cls, close: time, info: Any) -> time:
        if close <= info.data.get("open", time(0, 0)):
            raise ValueError("must be later than open")
        return close

    @cached_property
    def window(self) -> Window:
        return Window(self.timezone, read_days(self.days), self.open, self.close)


class RetryRuleSettings(_Section):
    """[retry.BUSY] and its like."""

    delays: tuple[Span, ...] = Field(min_length=1)
    at_most: int | None = Field(default=None, ge=0)


class RetrySettings(_Section):
    """[retry]: `max_dials`, `deadline`, `jitter` and one table for each result that is dialled again."""

    max_dials: int = Field(default=3, ge=1, le=20)
    deadline: Span = timedelta(hours=48)
    jitter: float = Field(default=0.2, ge=0, le=0.5)
    rules: Mapping[Result, RetryRuleSettings] = Field(default_factory=dict)

    @field_validator("rules", mode="before")
    @classmethod
    def _named_results(cls, rules: Mapping[str, Any]) -> dict[Result, Any]:
        named: dict[Result, Any] = {}
        for word, rule in rules.items():
            result = read_result(word)
            if result is None or (result in REACHED and result is not Result.AM):
                allowed = ", ".join(sorted(r for r in Result if r not in REACHED or r is Result.AM))
                raise ValueError(f"'{word}' is no result that can be dialled again; allowed: {allowed}")
            named[result] = rule
        return named

    @cached_property
    def policy(self) -> RetryPolicy:
        own = {result: RetryRule(part.delays, part.at_most) for result, part in self.rules.items()}
        return RetryPolicy(self.max_dials, self.deadline, self.jitter, {**DEFAULT_RULES, **own})


class Timeouts(_Section):
    """[timeouts]: how long we wait for news before a destination ends as TIMEOUT."""

    unknown: Span = timedelta(minutes=30)
    """After a lost answer."""
    accepted: Span = timedelta(hours=1)
    """After the provider accepted the call."""
    provider_retry: Span = timedelta(hours=24)
    """After the provider said that it will ring again by itself."""
    take_over: Span | None = None
    """When set: dial ourselves this long after the provider's own retry began and ended without a result."""


def _region(code: str) -> str:
    if code not in SUPPORTED_REGIONS:
        raise ValueError(f"'{code}' is no region; write two capital letters like 'US', 'CA' or 'DE'")
    return code


Region = Annotated[str, AfterValidator(_region)]


def _caller_id(number: str) -> str:
    if not is_e164(number) and not _SHORT_CODE.fullmatch(number):
        raise ValueError("write caller ids in E.164, for example '+12025550199'")
    return number


class Policy(_Section):
    """A campaign file. Every key has a default unless the design marks it as required."""

    name: str = Field(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]*$")
    account: str
    channel: Channel = Channel.VOICE
    region: Region = "US"
    regions_allowed: frozenset[Region] = Field(min_length=1)
    caller_ids: tuple[Annotated[str, AfterValidator(_caller_id)], ...] = Field(min_length=1)
    cps: float = Field(default=10, gt=0, le=10_000)
    in_flight: int = Field(default=200, ge=1)
    weight: int = Field(default=1, ge=1, le=100)
    columns: Columns = Columns()
    content: Message
    window: WindowSettings | None = None
    retry: RetrySettings = RetrySettings()
    timeouts: Timeouts = Timeouts()

    @model_validator(mode="after")
    def _fits_the_channel(self) -> Self:
        if self.channel is Channel.TEXT and not self.content.text:
            raise ValueError("content.text: is required on the channel 'text'")
        if self.channel is Channel.VOICE and any(_SHORT_CODE.fullmatch(number) for number in self.caller_ids):
            raise ValueError("caller_ids: a short code can send texts only; write E.164, for example '+12025550199'")
        return self


def read_policy(document: Mapping[str, Any]) -> Policy:
    """The policy in a parsed campaign file. Raises CampaignFileError that names each wrong key."""
    shaped = dict(document)
    if "\\u0000" in json.dumps(shaped, default=str):
        raise CampaignFileError("the campaign file holds a NUL character; take it out")
    retry = shaped.get("retry")
    if isinstance(retry, Mapping):
        rules = {k: v for k, v in retry.items() if isinstance(v, Mapping)}
        shaped["retry"] = {k: v for k, v in retry.items() if k not in rules} | {"rules": rules}
    try:
        return Policy.model_validate(shaped)
    except ValidationError as error:
        raise CampaignFileError(_explain(error)) from None


def _explain(error: ValidationError) -> str:
    lines = []
    for item in error.errors(include_url=False, include_input=False):
        key = ".".join(str(x) for x in item["loc"] if x != "rules")
        message = item["msg"].removeprefix("Value error, ")
        if item["type"] == "missing":
            message = "is required"
        elif item["type"] == "too_short":
            message = "must hold at least one value"
        elif item["type"] in ("literal_error", "enum"):
            message = "is none of the allowed words: voice, text"
        elif item["type"] == "extra_forbidden":
            message = "is no known key; see config/campaigns/example.toml for all of them"
        lines.append(f"{key}: {message}" if key else message)
    return "the campaign file cannot be used:\n  " + "\n  ".join(lines)


@dataclass(frozen=True, slots=True, kw_only=True)
class Campaign:
    """A campaign as it stands now, with the newest version of its policy."""

    id: int
    account_id: int
    part: int
    """The partition of its destinations, fixed for life."""
    state: CampaignState
    reason: str | None
    """Who paused it: operator, or config when the provider refuses its requests, with the provider's word."""
    policy_version: int
    policy: Policy
    created_at: datetime
    purged_at: datetime | None = None
    """Since then its destinations and attempts are gone."""

    def require_rows(self) -> None:
        """Raises NotFound when it was purged."""
        if self.purged_at:
            raise NotFound(
                f"campaign {self.id} was purged on {self.purged_at:%Y-%m-%d}: its destinations and attempts are "
                f"deleted. Its counts are kept: dispatcher campaign status {self.id}"
            )
