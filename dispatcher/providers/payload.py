"""Bodies from outside, read as data: size, depth, doubled keys and impossible characters are refused with a place.

JSON, XML and forms all become the same: dicts, lists, texts and numbers. An XML element becomes what the providers'
own JSON makes of it: attributes are '@name', repeated elements a list, a leaf its text (or 'value' beside attributes).
"""

import json
import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.parser import BytesParser
from email.policy import HTTP
from typing import Any, TypeVar
from urllib.parse import parse_qsl
from xml.etree.ElementTree import ParseError

from defusedxml import DefusedXmlException
from defusedxml.ElementTree import DefusedXMLParser
from pydantic import BaseModel, ValidationError

from dispatcher.domain.errors import PayloadError
from dispatcher.domain.phone import is_e164

MOST_BYTES = 256 * 1024
_DEEPEST = 50
_LONGEST_INT = 20
_MOST_FIELDS = 1000
_FORMS = ("application/x-www-form-urlencoded", "multipart/form-data")
_INSTANT = re.compile(r"(\d{4}-\d\d-\d\d)[T ](\d\d:\d\d:\d\d)(\.\d{1,9})?(Z|[+-]\d\d:?\d\d)?")
_BROKEN = re.compile("[\x00\ud800-\udfff]")
M = TypeVar("M", bound=BaseModel)


def read_document(content_type: str, body: bytes) -> Any:
    """A body in whatever form it came: by its type, or by its first character. Raises PayloadError."""
    if len(body) > MOST_BYTES:
        raise PayloadError(f"the body is longer than {MOST_BYTES} bytes")
    kind = content_type.partition(";")[0].strip().casefold()
    if kind in _FORMS:
        return read_form(content_type, body)
    text = _decode(body)
    if not text.strip():
        raise PayloadError("the body is empty")
    return read_xml(text) if text.lstrip().startswith("<") else _read_json(text)


def read_json(body: bytes) -> Any:
    """A JSON document. Raises PayloadError with line and column where there is one."""
    if len(body) > MOST_BYTES:
        raise PayloadError(f"the body is longer than {MOST_BYTES} bytes")
    return _read_json(_decode(body))


def _decode(body: bytes) -> str:
    try:
        text = body.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = body[: error.start]
        line, column = before.count(b"\n") + 1, error.start - before.rfind(b"\n")
        raise PayloadError(f"line {line} column {column}: the body is not UTF-8") from None
    if "\x00" in text:
        raise PayloadError(f"{_place(text, text.index(chr(0)))}: a NUL character")
    return text


def _place(text: str, at: int) -> str:
    return f"line {text.count(chr(10), 0, at) + 1} column {at - text.rfind(chr(10), 0, at)}"


def _read_json(text: str) -> Any:
    try:
        document = json.loads(
            text, object_pairs_hook=_once, parse_constant=_no_constant, parse_int=_sane_int, parse_float=_sane_float
        )
    except json.JSONDecodeError as error:
        raise PayloadError(f"line {error.lineno} column {error.colno}: {error.msg}") from None
    except RecursionError:
        raise PayloadError("the body is nested too deeply") from None
    _require_shallow(document)
    return document


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise PayloadError("a key stands twice in one object")
    return found


def _require_shallow(document: Any) -> None:
    """Not too deep, and every string is one that can be stored."""
    level = [document]
    for _ in range(_DEEPEST):
        below: list[Any] = []
        for item in level:
            if isinstance(item, dict):
                below += [*item, *item.values()]
            elif isinstance(item, list):
                below += item
            elif isinstance(item, str) and _BROKEN.search(item):
                raise PayloadError("a string holds a NUL or half a character")
        if not below:
            return
        level = below
    raise PayloadError("the body is nested too deeply")


def _no_constant(name: str) -> Any:
    raise PayloadError(f"{name} is no JSON number")


def _sane_int(digits: str) -> int:
    if len(digits.lstrip("-")) > _LONGEST_INT:
        raise PayloadError("a number has more than 20 digits")
    return int(digits)


def _sane_float(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise PayloadError("a number is too large")
    return value


class _Tree:
    """Builds plain data while expat reads."""

    def __init__(self) -> None:
        self._open: list[tuple[dict[str, Any], list[str]]] = []
        self.root: dict[str, Any] = {}

    def start(self, tag: str, attributes: Mapping[str, str]) -> None:
        if len(self._open) >= _DEEPEST:
            raise PayloadError("the body is nested too deeply")
        self._open.append(({f"@{_local(name)}": value for name, value in attributes.items()}, []))

    def data(self, text: str) -> None:
        if self._open:
            self._open[-1][1].append(text)

    def end(self, tag: str) -> None:
        node, texts = self._open.pop()
        text = "".join(texts).strip()
        value: Any = node
        if all(name.startswith("@") for name in node):
            value = {**node, "value": text} if node else text
        parent = self._open[-1][0] if self._open else self.root
        name = _local(tag)
        if name not in parent:
            parent[name] = value
        elif isinstance(parent[name], list):
            parent[name].append(value)
        else:
            parent[name] = [parent[name], value]

    def close(self) -> None: ...


def _local(tag: str) -> str:
    return tag.rpartition("}")[2]


def read_xml(text: str) -> dict[str, Any]:
    """An XML document as {root: ...}, without namespaces. Document types and entities are refused."""
    tree = _Tree()
    parser = DefusedXMLParser(forbid_dtd=True, target=tree)
    try:
        parser.feed(text)
        parser.close()
        return tree.root
    except ParseError as error:
        line, column = error.position
        raise PayloadError(f"line {line} column {column + 1}: {str(error).partition(':')[0]}") from None
    except DefusedXmlException as error:
        raise PayloadError(f"the body holds what is never read ({type(error).__name__})") from None
    except (ValueError, LookupError) as error:
        raise PayloadError(f"the body is no XML that can be read ({type(error).__name__})") from None


def read_form(content_type: str, body: bytes) -> dict[str, Any]:
    """A form's fields; a field that holds JSON is read as that. Raises PayloadError."""
    if content_type.strip().casefold().startswith("multipart/"):
        fields = _read_multipart(content_type, body)
    else:
        try:
            fields = parse_qsl(_decode(body), keep_blank_values=True, max_num_fields=_MOST_FIELDS, errors="strict")
        except ValueError as error:
            raise PayloadError(f"the form cannot be read: {type(error).__name__}") from None
    if not fields:
        raise PayloadError("the form is empty")
    found = _once(list(fields))
    shaped = {k: _read_json(v) if v.lstrip()[:1] in ("{", "[") else v for k, v in found.items()}
    _require_shallow(shaped)
    return shaped


def _read_multipart(content_type: str, body: bytes) -> list[tuple[str, str]]:
    head = f"Content-Type: {content_type}\r\n\r\n".encode("latin-1", "replace")
    try:
        message = BytesParser(policy=HTTP).parsebytes(head + body)
        parts = list(message.iter_parts()) if message.is_multipart() else []
        named = [(p.get_param("name", header="content-disposition"), p.get_payload(decode=True)) for p in parts]
    except Exception as error:  # the mail parser's own failures have no common base
        raise PayloadError(f"the form cannot be read: {type(error).__name__}") from None
    return [(str(name), _decode(value)) for name, value in named if name and isinstance(value, bytes)]


def read_model(model: type[M], document: Any) -> M:
    """A document as one of our wire models. Raises PayloadError that names the field, never its value."""
    try:
        return model.model_validate(document)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(str(x) for x in first["loc"]) or "the body"
        raise PayloadError(f"{place}: {first['msg']}") from None


def read_number(value: Any) -> str | None:
    """A NANP number as E.164, or None: 10 or 11 digits, with or without '+'; short codes have none."""
    e164 = read_international(value)
    digits = (e164 or "").lstrip("+")
    return f"+1{digits}" if len(digits) == 10 else e164


def read_international(value: Any) -> str | None:
    """A number with its country code as E.164, or None; never by way of a float."""
    if isinstance(value, Mapping):
        value = value.get("value")
    if isinstance(value, bool) or not isinstance(value, int | str):
        return None
    e164 = f"+{str(value).strip().lstrip('+')}"
    return e164 if is_e164(e164) else None


def read_instant(value: Any, *, naive: bool = False) -> datetime | None:
    """ISO 8601 with an offset, else None. `naive`: a time without one is UTC."""
    match = _INSTANT.fullmatch(value.strip()) if isinstance(value, str) else None
    if not match or (not match[4] and not naive):
        return None
    try:
        at = datetime.fromisoformat(
            f"{match[1]}T{match[2]}{(match[3] or '.0')[:7].ljust(7, '0')}{match[4] or '+00:00'}"
        )
        return at.astimezone(UTC)
    except (ValueError, OverflowError):
        return None


_UNITS = ((1e9, 1e11, 1.0), (1e12, 1e14, 1e-3), (1e15, 1e17, 1e-6))
"""From, to and seconds of one: the size of a unix time tells its unit."""


def read_unix(value: Any) -> datetime | None:
    """Unix seconds, milliseconds or microseconds by their size; anything else (false, 0, junk) is None."""
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < _LONGEST_INT:
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    unit = next((unit for low, high, unit in _UNITS if low <= value < high), None)
    return datetime.fromtimestamp(value * unit, UTC) if unit else None


def read_ms(value: Any) -> datetime | None:
    """Unix milliseconds; smaller values are junk of the published samples."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 1e12 <= value < 1e14:
        return None
    return datetime.fromtimestamp(value / 1000, UTC)
