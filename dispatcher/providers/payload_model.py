"""What the wire models of all providers share: how one value may come."""

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import AliasChoices, BaseModel, BeforeValidator, ConfigDict, Field

from dispatcher.domain.errors import PayloadError

LONGEST_WORD = 64
"""No id, number or word of theirs is longer; what is longer is cut, so that it fits wherever it is kept."""


def _text(value: Any) -> Any:
    if isinstance(value, Mapping):
        value = value.get("value")
    text = str(value) if isinstance(value, int) and not isinstance(value, bool) else value
    return text[:LONGEST_WORD] if isinstance(text, str) else text


def _or_none(value: Any) -> Any:
    text = _text(value)
    return None if text == "" else text


def _number(value: Any) -> Any:
    """Decimal words become numbers; false and nothing are none; anything else is refused."""
    if value is False:
        return None
    if isinstance(value, str):
        try:
            return float(value) if value.strip() and len(value) < LONGEST_WORD else None
        except ValueError:
            return value
    return value


Text = Annotated[str, BeforeValidator(_text)]
"""Ids and words come as integers (above 2^53 too), as strings, or as XML text with attributes."""
OptionalText = Annotated[str | None, BeforeValidator(_or_none)]
Number = Annotated[float | None, Field(allow_inf_nan=False), BeforeValidator(_number)]
Flag = Annotated[bool, BeforeValidator(lambda v: v not in (None, "", False, "false", "False", 0, "0"))]


def named(*names: str, default: Any = None) -> Any:
    """A field under any of the names that it is given."""
    return Field(default=default, validation_alias=AliasChoices(*names))


def list_of(value: Any) -> Any:
    """One, several or none: a list, an object, null or an empty string. Raises PayloadError."""
    if value is None or value == "":
        return ()
    if isinstance(value, dict):
        return (value,)
    if not isinstance(value, list | tuple):
        raise PayloadError("something else stands where a list belongs")
    return value


class PayloadModel(BaseModel):
    """Unknown fields are ignored."""

    model_config = ConfigDict(extra="ignore", frozen=True)
