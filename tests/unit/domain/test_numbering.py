"""The fast accept of numbers never contradicts `phonenumbers`: it accepts the same number, or leaves it open."""

import random
from collections.abc import Iterator

import phonenumbers
import pytest
from phonenumbers import COUNTRY_CODE_TO_REGION_CODE, PhoneMetadata, PhoneNumberFormat, PhoneNumberType

from dispatcher.domain.numbering import _plans, surely_valid
from dispatcher.domain.phone import SUPPORTED_REGIONS, Phone, ask_library, normalise

_TYPES = PhoneNumberType.values()
_REGIONS = sorted(SUPPORTED_REGIONS)
_FORMATS = (PhoneNumberFormat.NATIONAL, PhoneNumberFormat.INTERNATIONAL)


@pytest.mark.parametrize(
    ("text", "region"),
    [
        ("+49 4941 123456", "DE"),  # its area code begins as its country code does
        ("494941123456", "DE"),
        ("+49 49 4941 1234", "DE"),
        ("4949", "DE"),
        ("12025550142", "US"),
        ("+1 1 202 555 0142", "US"),
        ("+44 (0)20 7946 0958", "GB"),
        ("+39 06 6982", "IT"),  # the 0 belongs to the number
        ("8 495 123-45-67", "RU"),
        ("0011 61 2 1234 5678", "AU"),
        ("+1+2025550142", "US"),
        ("2025550142.0", "US"),
        ("+12025550142.", "US"),
        ("0000000112", "US"),
        ("(+1) 202 555 0142", "US"),
        ("1 (1) 202 555 0142", "US"),
        ("2025550142", "XX"),
    ],
)
def test_doubtful_spellings(text: str, region: str) -> None:
    if region in SUPPORTED_REGIONS:
        assert normalise(text, region, SUPPORTED_REGIONS) == ask_library(text.strip(), region, SUPPORTED_REGIONS)
    else:
        assert surely_valid(text, region) is None


@pytest.mark.parametrize("text", ["+12025550142", "2025550142", "(202) 555-0142", "1 202 555 0142", "202.555.0142"])
def test_everyday_numbers_are_accepted_fast(text: str) -> None:
    assert surely_valid(text, "US") == ("+12025550142", "US")


def test_the_region_is_told_by_a_name_of_its_own() -> None:
    """A group within a pattern of the metadata would hide which region was found."""
    for code, regions in COUNTRY_CODE_TO_REGION_CODE.items():
        plan = _plans[str(code)]
        if plan:
            assert plan.region_groups == len(regions)


def test_numbers_of_all_regions_types_and_spellings() -> None:
    _compare(100_000, seed=1)


@pytest.mark.full
@pytest.mark.timeout(900)
def test_a_million_numbers() -> None:
    _compare(1_000_000, seed=2)


def _compare(n: int, seed: int) -> None:
    rng = random.Random(seed)
    examples = [
        (region, example)
        for region in _REGIONS
        for kind in _TYPES
        if (example := phonenumbers.example_number_for_type(region, kind))
    ]
    accepted = valid = 0
    for _ in range(n):
        home, example = rng.choice(examples)
        region = home if rng.random() < 0.8 else rng.choice(_REGIONS)
        text = _spelt(rng, home, str(example.country_code), _changed(rng, example)).strip()
        known = ask_library(text, region, SUPPORTED_REGIONS)
        assert normalise(text, region, SUPPORTED_REGIONS) == known, (text, region)
        accepted += surely_valid(text, region) is not None
        valid += isinstance(known, Phone)
    assert accepted > 0.8 * valid, f"{accepted} of {valid} valid numbers were accepted fast"


def _changed(rng: random.Random, example: phonenumbers.PhoneNumber) -> str:
    """A national number near one that is valid."""
    digits = list(phonenumbers.national_significant_number(example))
    match rng.randrange(20):
        case 0:
            digits.append(_digit(rng))
        case 1:
            digits.pop()
        case 2:
            digits = [*str(example.country_code), *digits[: rng.randrange(2, 12)]]
        case 3:
            digits = [_digit(rng) for _ in range(rng.randrange(2, 13))]
        case 4 | 5 | 6 | 7:
            digits[rng.randrange(len(digits))] = _digit(rng)
        case 8 | 9 | 10:
            pass
        case _:
            kept = rng.randrange(1, len(digits))
            digits[kept:] = [_digit(rng) for _ in digits[kept:]]
    return "".join(digits)


def _digit(rng: random.Random) -> str:
    return rng.choice("0123456789")


def _spelt(rng: random.Random, home: str, code: str, national: str) -> str:
    metadata = PhoneMetadata.metadata_for_region(home)
    prefix = (metadata and metadata.national_prefix) or ""
    spellings = [
        f"+{code}{national}",
        f"+{code} {_parted(rng, national)}",
        f"+{code} (0){national}",
        f"+{code} {prefix}{national}",
        national,
        _parted(rng, prefix + national),
        f"{prefix}{national}",
        f"{code}{national}",
        _parted(rng, code + national),
        f"00{code}{national}",
        f"({national[:3]}) {national[3:]}",
        *_formatted(f"+{code}{national}"),
    ]
    return rng.choice(spellings)


def _formatted(text: str) -> Iterator[str]:
    try:
        parsed = phonenumbers.parse(text)
    except phonenumbers.NumberParseException:
        return
    for form in _FORMATS:
        yield phonenumbers.format_number(parsed, form)


def _parted(rng: random.Random, digits: str) -> str:
    return "".join(c + (rng.choice(" .-()") if rng.random() < 0.2 else "") for c in digits)
