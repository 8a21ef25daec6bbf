"""What a phone number is, and why a text is none.

Strict on purpose (reliability S37-S40): libphonenumber alone turns Arabic digits into a valid number, drops
extensions and cuts '+1212555121O' (letter O) short; we refuse what a person would have to guess.
"""

import re
from typing import NamedTuple

import phonenumbers
from phonenumbers import NumberParseException, PhoneNumberType

from dispatcher.domain.numbering import surely_valid
from dispatcher.domain.reasons import Fault

SUPPORTED_REGIONS: frozenset[str] = frozenset(phonenumbers.SUPPORTED_REGIONS)
_ALLOWED = re.compile(r"[0-9 +().\-]*")
DECIMAL = re.compile(r"\+?[0-9]{7,}\.0*")
"""A spreadsheet's idea of a number: its last 0 would become a digit of somebody else's."""
_E164 = re.compile(r"\+[1-9][0-9]{6,14}")
_EMERGENCY = re.compile(r"(\+?1?(911|112|999|000|110|100|101|102|108|988|933|[2-8]11))|0*112")
_NOT_GEOGRAPHIC = ("+979", "+808", "+870", "+878", "+881", "+882", "+883", "+888", "+800")
_EXPENSIVE = frozenset({PhoneNumberType.PREMIUM_RATE, PhoneNumberType.SHARED_COST, PhoneNumberType.PAGER})


class Phone(NamedTuple):
    """A number that may be dialled: E.164 with '+', and the region it belongs to (ISO 3166, by area code)."""

    e164: str
    region: str


class NotAPhone(NamedTuple):
    """Why a text is no number that we may dial."""

    reason: Fault
    e164: str | None = None


def normalise(raw: str, default_region: str, allowed: frozenset[str]) -> Phone | NotAPhone:
    """Read one number as it stands in a file.

    `default_region` completes numbers without a country code; `allowed` are the regions that a campaign may
    dial: NANP is split by area code, so +1 876 is JM and not US.
    """
    text = raw.strip()
    found = None if "." in text and DECIMAL.fullmatch(text) else surely_valid(text, default_region)
    if found is None:
        return ask_library(text, default_region, allowed)
    e164, region = found
    return Phone(e164, region) if region in allowed else NotAPhone(Fault.REGION_NOT_ALLOWED, e164)


def ask_library(text: str, default_region: str, allowed: frozenset[str]) -> Phone | NotAPhone:
    """The whole verdict, with a reason; twenty times slower."""
    if not text:
        return NotAPhone(Fault.EMPTY)
    if not _ALLOWED.fullmatch(text):
        return NotAPhone(Fault.BAD_CHARACTERS)
    if DECIMAL.fullmatch(text):
        return NotAPhone(Fault.DECIMAL)
    if _EMERGENCY.fullmatch(re.sub(r"[ ().\-]", "", text)):
        return NotAPhone(Fault.EMERGENCY)
    try:
        parsed = phonenumbers.parse(text, default_region)
    except NumberParseException:
        return NotAPhone(Fault.NOT_A_NUMBER)
    e164 = phonenumbers.format_number(parsed, phonenumbers.PhoneNumberFormat.E164)
    if not _E164.fullmatch(e164):
        return NotAPhone(Fault.NOT_A_NUMBER)
    return _policy(parsed, e164, allowed)


def _policy(parsed: phonenumbers.PhoneNumber, e164: str, allowed: frozenset[str]) -> Phone | NotAPhone:
    if e164.startswith(_NOT_GEOGRAPHIC):
        return NotAPhone(Fault.SATELLITE_OR_PREMIUM, e164)
    kind = phonenumbers.number_type(parsed)
    if kind == PhoneNumberType.UNKNOWN:  # is_valid_number asks the same, once more
        return NotAPhone(Fault.IMPOSSIBLE, e164)
    if kind in _EXPENSIVE:
        return NotAPhone(Fault.PREMIUM, e164)
    region = phonenumbers.region_code_for_number(parsed) or "ZZ"
    if region not in allowed:
        return NotAPhone(Fault.REGION_NOT_ALLOWED, e164)
    return Phone(e164, region)


def is_e164(text: str) -> bool:
    """Is this an E.164 number with '+', ASCII digits only?"""
    return _E164.fullmatch(text) is not None


def mask(e164: str) -> str:
    """A number as logs may show it: '+1202***0142'."""
    return f"{e164[:5]}***{e164[-4:]}" if len(e164) > 9 else "***"
