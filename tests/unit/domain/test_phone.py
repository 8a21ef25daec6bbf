"""Numbers: what is one, and why a text is none."""

import re

import phonenumbers
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.domain.phone import SUPPORTED_REGIONS, NotAPhone, Phone, mask, normalise
from dispatcher.domain.reasons import Fault

US = frozenset({"US"})
VALID_AND_REFUSED = ("PREMIUM", "REGION_NOT_ALLOWED", "SATELLITE_OR_PREMIUM")


@pytest.mark.parametrize(
    "text",
    ["2025550142", "+12025550142", "(202) 555-0142", "202.555.0142", "1 202 555 0142", " 202-555-0142 "],
)
def test_spellings_of_one_number(text: str) -> None:
    assert normalise(text, "US", US) == Phone("+12025550142", "US")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "EMPTY"),
        ("   ", "EMPTY"),
        ("n/a", "BAD_CHARACTERS"),
        ("+1202555014O", "BAD_CHARACTERS"),  # libphonenumber alone cuts it to a shorter number
        ("202-555-0142 ext 5", "BAD_CHARACTERS"),  # and drops this
        ("٢٠٢٥٥٥٠١٤٢", "BAD_CHARACTERS"),  # and accepts this
        ("２０２５５５０１４２", "BAD_CHARACTERS"),
        ("202²5550142", "BAD_CHARACTERS"),
        ("911", "EMERGENCY"),
        ("+1911", "EMERGENCY"),
        ("1-911", "EMERGENCY"),
        ("00112", "EMERGENCY"),
        ("411", "EMERGENCY"),
        ("999", "EMERGENCY"),
        ("5550142", "IMPOSSIBLE"),
        ("1234567890", "IMPOSSIBLE"),  # "there is no 123 area code" (seed 000)
        ("12", "NOT_A_NUMBER"),
        ("+1 900 555 0142", "PREMIUM"),
        ("+881 6 1234 5678", "SATELLITE_OR_PREMIUM"),
        ("+870 773 123456", "SATELLITE_OR_PREMIUM"),
        ("+979 123456789", "SATELLITE_OR_PREMIUM"),
        ("+1 876 555 0142", "REGION_NOT_ALLOWED"),  # Jamaica is no part of the US
        ("+1 809 555 0142", "REGION_NOT_ALLOWED"),
        ("+44 20 7946 0958", "REGION_NOT_ALLOWED"),
    ],
)
def test_what_is_refused(text: str, reason: str) -> None:
    refused = normalise(text, "US", US)
    assert isinstance(refused, NotAPhone)
    assert refused.reason == reason


@given(st.text(max_size=30))
def test_whatever_comes_a_number_is_e164_and_allowed(text: str) -> None:
    found = normalise(text, "US", US)
    if isinstance(found, Phone):
        assert re.fullmatch(r"\+1[2-9][0-9]{9}", found.e164)
        assert found.region == "US"


@given(st.text("0123456789", max_size=6))
def test_short_codes_are_never_dialled(text: str) -> None:
    assert isinstance(normalise(text, "US", US), NotAPhone)


@given(st.integers(2_000_000_000, 9_999_999_999))
def test_normalising_twice_changes_nothing(digits: int) -> None:
    found = normalise(str(digits), "US", US)
    if isinstance(found, Phone):
        assert normalise(found.e164, "US", US) == found


@given(st.sampled_from(sorted(SUPPORTED_REGIONS)), st.integers(0, 10), st.integers(0, 14), st.integers(0, 9))
def test_a_number_of_no_type_is_not_valid(region: str, kind: int, place: int, digit: int) -> None:
    """An example number of each region and type, with one digit changed."""
    example = phonenumbers.example_number_for_type(region, kind)
    if example is None:
        return
    digits = str(example.national_number)
    place %= len(digits)
    changed = f"+{example.country_code}{digits[:place]}{digit}{digits[place + 1 :]}"
    found = normalise(changed, region, SUPPORTED_REGIONS)
    valid = phonenumbers.is_valid_number(phonenumbers.parse(changed))
    assert valid == (isinstance(found, Phone) or found.reason in VALID_AND_REFUSED)


def test_masks_show_no_whole_number() -> None:
    assert mask("+12025550142") == "+1202***0142"
    assert mask("+1202555") == "***"


@pytest.mark.parametrize("text", ["12025550142.0", "+12025550142.00", "2025550142."])
def test_a_spreadsheets_number_is_not_completed_to_somebody_elses(text: str) -> None:
    assert normalise(text, "US", frozenset({"US"})) == NotAPhone(Fault.DECIMAL)


def test_dots_between_groups_are_writing() -> None:
    assert normalise("01.23.45.67.00", "FR", frozenset({"FR"})) == Phone("+33123456700", "FR")
