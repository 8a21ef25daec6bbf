"""Bodies from outside, read as data: size, depth, doubled keys and impossible characters are refused with a place."""

import json
from datetime import UTC, datetime
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from dispatcher.domain.errors import PayloadError
from dispatcher.domain.phone import is_e164

MOST_BYTES = 64 * 1024
_LONGEST_INT = 20
M = TypeVar("M", bound=BaseModel)


def read_json(body: bytes) -> Any:
    """A JSON document. Raises PayloadError with line and column where there is one."""
    if len(body) > MOST_BYTES:
        raise PayloadError(f"the body is longer than {MOST_BYTES} bytes")
    try:
        text = body.decode("utf-8-sig")
        if "\x00" in text or "\\u0000" in text:
            raise PayloadError("the body holds a NUL character")
        return json.loads(text, object_pairs_hook=_once, parse_constant=_no_constant, parse_int=_sane_int)
    except UnicodeDecodeError as error:
        raise PayloadError(f"the body is not UTF-8 (byte {error.start})") from None
    except json.JSONDecodeError as error:
        raise PayloadError(f"line {error.lineno} column {error.colno}: {error.msg}") from None
    except RecursionError:
        raise PayloadError("the body is nested too deeply") from None


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise PayloadError("a key stands twice in one object")
    for value in (*found, *(v for v in found.values() if isinstance(v, str))):
        if any("\ud800" <= c <= "\udfff" for c in value):
            raise PayloadError("a string holds half a character")
    return found


def _no_constant(name: str) -> Any:
    raise PayloadError(f"{name} is no JSON number")


def _sane_int(digits: str) -> int:
    if len(digits.lstrip("-")) > _LONGEST_INT:
        raise PayloadError("a number has more than 20 digits")
    return int(digits)


def read_model(model: type[M], document: Any) -> M:
    """A document as one of our wire models. Raises PayloadError that names the field, never its value."""
    try:
        return model.model_validate(document)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(str(x) for x in first["loc"]) or "the body"
        raise PayloadError(f"{place}: {first['msg']}") from None


def read_number(value: str | None) -> str | None:
    """A provider's spelling of a NANP number as E.164, or None: 10 or 11 digits, with or without '+'."""
    digits = (value or "").lstrip("+")
    if not digits.isascii() or not digits.isdigit():
        return None
    e164 = f"+1{digits}" if len(digits) == 10 else f"+{digits}"
    return e164 if is_e164(e164) else None


def read_ms(value: int | float | None) -> datetime | None:
    """Unix milliseconds; smaller values are junk of the published samples."""
    if value is None or not 1e12 <= value < 1e14:
        return None
    return datetime.fromtimestamp(value / 1000, UTC)
