"""Numbering plans: the numbers that surely are valid, found without asking `phonenumbers` for each.

Its metadata is compiled into a few patterns for each calling code, when the code is first met: nothing is copied, so a
new version of the library brings its own plans. What these patterns do not accept is not refused; the caller asks the
library, whose verdict they never contradict (tests/unit/domain/test_numbering.py).
"""

import re
from collections.abc import Iterable
from functools import cache
from typing import Any

from phonenumbers import COUNTRY_CODE_TO_REGION_CODE, PhoneMetadata

_SEPARATORS = b" ().-"
_LONGEST = 40
_LEAST_DIGITS, _MOST_DIGITS = 7, 15
_NOT_GEOGRAPHIC = "001"
_EXPENSIVE = ("premium_rate", "shared_cost", "pager")
_DIALLED = ("fixed_line", "mobile", "toll_free", "voip", "personal_number", "uan", "voicemail")
_EMERGENCY = "112"
"""With any number of leading zeros: phone.py refuses it with the reason EMERGENCY."""
_NEVER = "(?!)"


Number = tuple[str, str]
"""E.164 with '+', and the region it belongs to (ISO 3166; within a shared calling code by its leading digits)."""


def surely_valid(text: str, region: str) -> Number | None:
    """Read a number as it stands in a file; `region` completes what has no country code. None: ask the library.

    What is found is valid, and neither premium-rate, shared-cost nor a pager.
    """
    if text[:1] == "+" and (digits := text[1:]).isdigit() and text.isascii():  # the common case
        return _international(digits)
    if len(text) > _LONGEST or not text.isascii():
        return None
    digits = text.encode().translate(None, _SEPARATORS).decode()
    if text[:1] == "+":
        return _international(digits[1:]) if digits[1:].isdigit() else None
    return _from_region(digits, region) if digits.isdigit() else None


def _international(digits: str) -> Number | None:
    for length in (1, 2, 3):
        plan = _plans[digits[:length]]
        if plan:
            dialled = digits[length:]
            if plan.is_main_region(dialled):
                return f"+{digits}", plan.main_region
            national = plan.main.without_prefix(dialled)
            return plan.find(national) if national else None
    return None


def _from_region(digits: str, region: str) -> Number | None:
    dialling = _dialling(region)
    plan = _plans[dialling.code] if dialling else None
    if dialling is None or plan is None or dialling.abroad(digits) or digits.lstrip("0") == _EMERGENCY:
        return None
    if not digits.startswith(dialling.code):
        national = dialling.without_prefix(digits)
    elif dialling.is_country_code(digits):
        national = plan.main.without_prefix(digits[len(dialling.code) :])
    else:
        return None
    return plan.find(national) if national else None


class _Dialling:
    """How numbers are dialled within a region."""

    __slots__ = ("_lengths", "_transforms", "abroad", "code", "general", "prefix")

    def __init__(self, metadata: Any) -> None:
        self.code = str(metadata.country_code)
        self.general = re.compile(metadata.general_desc.national_number_pattern or _NEVER).fullmatch
        self.prefix = re.compile(metadata.national_prefix_for_parsing or _NEVER).match
        self.abroad = re.compile(metadata.international_prefix or _NEVER).match
        self._transforms = bool(metadata.national_prefix_transform_rule)
        self._lengths = frozenset(metadata.general_desc.possible_length)

    def without_prefix(self, digits: str) -> str | None:
        """The national number; None when it is not certain what of it is a prefix."""
        found = self.prefix(digits)
        if not found:
            return digits
        rest = digits[found.end() :]
        is_plain = not (self._transforms and found.groups()[-1:] not in ((), (None,)))
        is_prefix = self.general(rest) and len(rest) in self._lengths
        return rest if is_plain and is_prefix else None

    def is_country_code(self, digits: str) -> bool:
        """Do these digits, which begin with the country code, surely begin with it as such?"""
        rest = digits[len(self.code) :]
        return not (self.general(digits) or self.prefix(rest)) and self.general(rest) is not None


class _Plan:
    """The numbers of one calling code."""

    __slots__ = (
        "_accepted",
        "_code",
        "_lengths",
        "_region_of",
        "is_main_region",
        "main",
        "main_region",
        "region_groups",
    )

    def __init__(self, code: str, regions: tuple[str, ...]) -> None:
        found = {region: metadata for region in regions if (metadata := PhoneMetadata.metadata_for_region(region))}
        self._code = f"+{code}"
        self._lengths = range(_LEAST_DIGITS - len(code), _MOST_DIGITS - len(code) + 1)
        self.main_region = regions[0]
        main = found[self.main_region]
        self.main = _Dialling(main)
        self._accepted = {region: re.compile(_accepted(metadata)).fullmatch for region, metadata in found.items()}
        self.is_main_region = re.compile(_main_region_pattern(main, self._lengths)).fullmatch
        # in the library's order: the first region whose leading digits, or whose numbers, these are
        each = (f"(?P<{region}>{_belonging(metadata)})" for region, metadata in found.items())
        region_of = re.compile("|".join(each))
        self.region_groups = region_of.groups
        self._region_of = region_of.match

    def find(self, national: str) -> Number | None:
        """The number, if it surely is one."""
        if len(national) not in self._lengths:
            return None
        region = self._region(national)
        return (self._code + national, region) if region else None

    def _region(self, national: str) -> str | None:
        """Where it is accepted."""
        if self.is_main_region(national):
            return self.main_region
        found = self._region_of(national)
        region = found.lastgroup if found else None
        return region if region and self._accepted[region](national) else None


class _Plans(dict[str, _Plan | None]):
    """By calling code, made when they are first asked for."""

    def __missing__(self, code: str) -> _Plan | None:
        regions = COUNTRY_CODE_TO_REGION_CODE.get(int(code)) if code and code[0] != "0" else None
        self[code] = _Plan(code, regions) if regions and _NOT_GEOGRAPHIC not in regions else None
        return self[code]


_plans = _Plans()


@cache
def _dialling(region: str) -> _Dialling | None:
    metadata = PhoneMetadata.metadata_for_region(region, None)
    return _Dialling(metadata) if metadata else None


def _main_region_pattern(metadata: Any, lengths: range) -> str:
    """Numbers of the main region that have no national prefix; no number when leading digits decide the region."""
    if (
        metadata.leading_digits
        or not lengths.start <= min(_lengths(metadata)) <= max(_lengths(metadata)) < lengths.stop
    ):
        return _NEVER
    return f"(?!{metadata.national_prefix_for_parsing or _NEVER}){_accepted(metadata)}"


def _lengths(metadata: Any) -> tuple[int, ...]:
    return tuple(n for n in metadata.general_desc.possible_length if n > 0) or (0,)


def _belonging(metadata: Any) -> str:
    return metadata.leading_digits or f"{_any_type(metadata)}$"


def _any_type(metadata: Any) -> str:
    return f"{_ahead(metadata.general_desc)}(?:{_numbers(metadata, _EXPENSIVE + _DIALLED)})"


def _accepted(metadata: Any) -> str:
    expensive = f"(?!(?:{_numbers(metadata, _EXPENSIVE)})$)"
    return f"{expensive}{_ahead(metadata.general_desc)}(?:{_numbers(metadata, _DIALLED)})"


def _ahead(description: Any) -> str:
    return f"(?={_pattern(description)}$)"


def _numbers(metadata: Any, kinds: Iterable[str]) -> str:
    patterns = [_pattern(getattr(metadata, kind)) for kind in kinds]
    return "|".join(dict.fromkeys(pattern for pattern in patterns if pattern != _NEVER)) or _NEVER


def _pattern(description: Any) -> str:
    """What the library matches: the description's pattern, in one of its lengths."""
    if description is None or not description.national_number_pattern:
        return _NEVER
    lengths = "|".join(rf"\d{{{n}}}" for n in description.possible_length if n > 0)
    return f"(?=(?:{lengths})$)(?:{description.national_number_pattern})" if lengths else _NEVER
