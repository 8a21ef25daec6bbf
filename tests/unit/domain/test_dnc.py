"""Numbers as lists hold them: exactly as the loader writes them, or a number would be on a list in vain."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.domain.dnc import read_listed
from dispatcher.domain.phone import NotAPhone, normalise
from dispatcher.domain.reasons import Fault

NANP = st.from_regex(r"\A[2-9][0-9]{2}[2-9][0-9]{6}\Z")


@given(NANP, st.sampled_from(["{}", "+1{}", "1{}", "({0[0]}{0[1]}{0[2]}) {1}"]), st.sampled_from(["US", "CA"]))
def test_the_fast_way_says_what_the_loader_says(digits: str, form: str, region: str) -> None:
    text = form.format(digits, digits[3:])
    loaded = normalise(text, region, frozenset({"US", "CA"}))
    if loaded.e164 is not None and loaded != NotAPhone(Fault.EMERGENCY):
        assert read_listed(text, region) == loaded.e164


@pytest.mark.parametrize(
    ("text", "region", "found"),
    [
        ("+1 900*", "US", "+1900*"),
        ("+44 (0)20 7946 0123", "US", "+442079460123"),
        ("020 7946 0123", "GB", "+442079460123"),
        ("2025550142", "GB", None),
        ("+*", "US", None),
        ("*", "US", None),
        ("1900*", "US", None),
        ("\u0662\u0660\u0662\u0665\u0665\u0665\u0660\u0661\u0664\u0662", "US", None),
        ("911", "US", None),
        ("", "US", None),
    ],
)
def test_what_a_list_takes(text: str, region: str, found: str | None) -> None:
    read = read_listed(text, region)
    assert read == found if found else isinstance(read, NotAPhone)
