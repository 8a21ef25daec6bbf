"""Arrays as PostgreSQL reads them; tests/contract/test_array_round_trip.py asks the server itself."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.store.database import array


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ([], "{}"),
        ([None, "NULL", "null", "Nullable"], '{NULL,"NULL","null",Nullable}'),
        (["", " ", "a b", "+12025550001"], '{""," ","a b",+12025550001}'),
        (['"', "\\", '\\"', "{", "}", ","], '{"\\"","\\\\","\\\\\\"","{","}",","}'),
        ([1, -2, 1.5, True, False], "{1,-2,1.5,True,False}"),
        (["line\nbreak", "é"], '{"line\nbreak","é"}'),
        ([datetime(2026, 1, 5, 15, tzinfo=UTC)], '{"2026-01-05T15:00:00+00:00"}'),
    ],
)
def test_how_values_are_written(values: list[str | int | float | bool | datetime | None], text: str) -> None:
    assert array(values) == text


def read(text: str) -> list[str | None]:
    """What PostgreSQL's manual says that an array's text means."""
    values: list[str | None] = []
    inside, i = text[1:-1], 0
    while i < len(inside):
        chars, quoted, is_open = [], inside[i] == '"', inside[i] == '"'
        i += quoted
        while i < len(inside) and (is_open or inside[i] != ","):
            if is_open and inside[i] == '"':
                is_open = False
            else:
                i += inside[i] == "\\"
                chars.append(inside[i])
            i += 1
        i += 1
        word = "".join(chars)
        values.append(None if not quoted and word.lower() == "null" else word)
    return values


WORDS = st.text(st.sampled_from('aN"\\{}, \nü+-.:@')) | st.sampled_from(["NULL", "null", ""]) | st.text()


@given(st.lists(st.none() | WORDS, max_size=8))
def test_what_is_written_means_the_same_again(values: list[str | None]) -> None:
    assert read(array(values)) == values


@given(st.text(min_size=1))
def test_one_value_is_one_element_whatever_it_holds(text: str) -> None:
    assert read(array([text, "end"])) == [text, "end"]
