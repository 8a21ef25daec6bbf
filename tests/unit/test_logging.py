"""Logs show no whole number, however it is written."""

import pytest

from config.logging import mask_numbers


@pytest.mark.parametrize(
    "written",
    [
        "+12025550142",
        "rang +12025550142.",
        "202-555-0142",
        "(202) 555-0142 said no",
        "+1 202 555 0142",
        "to=%2B12025550142&x",
        "number_12025550142",
        "'12025550142'",
        "+442079460958",
    ],
)
def test_a_number_is_masked(written: str) -> None:
    digits = "".join(c for c in mask_numbers(written) if c.isdigit())
    assert "2025550142" not in digits
    assert "2079460958" not in digits


@pytest.mark.parametrize(
    "kept", ["2026-11-21T06:08:21.123456+00:00", "attempt 2h8yewn8mm4dm", "line 123456", "12.5 s", "pid 20476"]
)
def test_what_is_no_number_stays(kept: str) -> None:
    assert mask_numbers(kept) == kept
