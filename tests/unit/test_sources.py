"""Files of destinations: what is read, with which line, and what is refused."""

import csv
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.domain.errors import SourceError
from dispatcher.domain.screening import Record, make_screen, map_columns
from dispatcher.sources import content_digest, open_numbers, open_records
from tests.factories import make_policy


def rows(tmp_path: Path, content: bytes) -> list[tuple[int, dict[str, str]]]:
    path = tmp_path / "file.csv"
    path.write_bytes(content)
    with open_records(path) as source:
        return [(r.line, dict(r.fields)) for r in source.records]


def test_lines_are_physical_ones(tmp_path: Path) -> None:
    content = b'phone,name\n1,"Ada\nLovelace"\n\n2,Grace\r\n3,"x ""y"""\n'
    assert rows(tmp_path, content) == [
        (2, {"phone": "1", "name": "Ada\nLovelace"}),
        (5, {"phone": "2", "name": "Grace"}),
        (6, {"phone": "3", "name": 'x "y"'}),
    ]


def test_a_byte_order_mark_and_short_and_long_rows(tmp_path: Path) -> None:
    content = "\ufeffphone, name \n1\n2,b,c\n".encode()
    path = tmp_path / "long.csv"
    path.write_bytes(content)
    with open_records(path) as source:
        assert [r.problem for r in source.records] == [None, "TOO_MANY_FIELDS"]
    assert rows(tmp_path, content) == [(2, {"phone": "1", "name": ""}), (3, {"phone": "2", "name": "b"})]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is empty; its first line must name the columns"),
        (b"phone,name\n1,M\xfcller\n", "line 2 is not UTF-8 (byte 14 of the file)"),
        ("phone,name\n1,Ada\n".encode("utf-16"), "line 1 is not UTF-8 (byte 0 of the file)"),
        (b"phone,name\n1,A\x00da\n", "line 2 holds a NUL byte"),
        (b'phone,name\n1,"Ada\n', "line 2: a quote is opened here and never closed"),
        (b'phone,name\n1,"a" b\n', "line 2 is no CSV"),
        (b"phone,phone\n", "names a column twice"),
        (b"phone\n" + b"1" * 5000 + b"\n", "line 2 is no CSV: field larger than field limit"),
    ],
)
def test_what_is_refused(tmp_path: Path, content: bytes, said: str) -> None:
    with pytest.raises(SourceError) as refused:
        rows(tmp_path, content)
    assert said in str(refused.value)


@pytest.mark.parametrize("name", ["missing.csv", "."])
def test_what_cannot_be_opened(tmp_path: Path, name: str) -> None:
    for read in (lambda p: open_records(p).__enter__(), content_digest):
        with pytest.raises(SourceError, match="cannot be read"):
            read(tmp_path / name)


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_the_delimiter_is_guessed(tmp_path: Path, delimiter: str) -> None:
    content = delimiter.join(["phone", "name"]) + "\n" + delimiter.join(["1", '"a,b;c\td"']) + "\n"
    assert rows(tmp_path, content.encode()) == [(2, {"phone": "1", "name": "a,b;c\td"})]


def json_lines(tmp_path: Path, content: str) -> list[tuple[int, dict[str, str], str | None]]:
    path = tmp_path / "file.jsonl"
    path.write_text(content, encoding="utf-8")
    with open_records(path) as source:
        return [(r.line, dict(r.fields), r.problem) for r in source.records]


def test_json_lines_keep_every_digit(tmp_path: Path) -> None:
    content = '\ufeff{"phone": 12025550142, "n": 1.50, "b": true, "x": null}\n\n{"phone": "+1202"}\n'
    assert json_lines(tmp_path, content) == [
        (1, {"phone": "12025550142", "n": "1.50", "b": "true", "x": ""}, None),
        (3, {"phone": "+1202"}, None),
    ]


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ('{"phone": "1", "phone": "2"}', "DOUBLE_KEY"),
        ('{"phone": ["1"]}', "NOT_FLAT"),
        ('{"phone": "1\\u0000"}', "BAD_CHARACTERS"),
        ('{"phone": "1\\ud800"}', "BAD_CHARACTERS"),
    ],
)
def test_a_json_record_that_is_doubted(tmp_path: Path, line: str, problem: str) -> None:
    ((_, fields, found),) = json_lines(tmp_path, line + "\n")
    assert found == problem
    assert "\x00" not in str(fields)
    str(fields).encode()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "is empty"),
        ('{"phone": 1}\nphone\n', "line 2 column 1 is no JSON"),
        ("[1]\n", "line 1 is no JSON object"),
        ("[" * 100_000 + "\n", "line 1 is nested too deeply"),
    ],
)
def test_json_lines_that_are_refused(tmp_path: Path, content: str, said: str) -> None:
    with pytest.raises(SourceError) as refused:
        json_lines(tmp_path, content)
    assert said in str(refused.value)


def test_a_line_without_an_end_is_refused_in_constant_memory(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="line 2 is longer than"):
        rows(tmp_path, b"phone\n" + b"1" * (3 << 20))


def test_a_missing_column_is_named_with_those_there_are() -> None:
    with pytest.raises(SourceError, match="no column 'name'; its columns are 'tel'"):
        map_columns(["tel"], make_policy())


@pytest.mark.parametrize(
    ("columns", "chosen", "number", "name"),
    [
        (["phone", "name"], {}, "phone", "name"),
        (["Phone Number", "NAME"], {}, "Phone Number", "NAME"),
        (["id", "MSISDN", "Name"], {}, "MSISDN", "Name"),
        (["phone", "mobile", "name"], {}, "phone", "name"),
        (["phone", "mobile", "name"], {"number": "mobile"}, "mobile", "name"),
        (["tel", "First name"], {"variables": {"name": "First name"}}, "tel", "First name"),
    ],
)
def test_columns_are_named_or_guessed(columns: list[str], chosen: dict[str, object], number: str, name: str) -> None:
    found = map_columns(columns, make_policy(columns=chosen))
    assert (found.number, dict(found.variables)) == (number, {"name": name})


@pytest.mark.parametrize(
    ("columns", "chosen", "said"),
    [
        (["Tel", "mobile", "name"], {}, "several columns may hold the number .'Tel', 'mobile'."),
        (["phone", "name"], {"number": "tel"}, "has no column 'tel'"),
        (["phone", "name"], {"keep": ["id"]}, "has no column 'id'"),
        (["a", "b"], {}, "none that is named like a phone number; its columns are 'a', 'b'"),
    ],
)
def test_columns_that_cannot_be_told(columns: list[str], chosen: dict[str, object], said: str) -> None:
    with pytest.raises(SourceError, match=said):
        map_columns(columns, make_policy(columns=chosen))


def test_a_file_without_a_header_is_refused_and_its_number_not_shown(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="first line holds a number") as refused:
        rows(tmp_path, b"+12025550142,Ada\n")
    assert "5550142" not in str(refused.value)


def test_what_is_kept_needs_no_value() -> None:
    policy = make_policy(columns={"keep": ["id"]})
    screen = make_screen(["phone", "name", "id"], policy)
    kept = screen(Record(2, {"phone": "+12025550142", "name": "Ada", "id": ""}))
    assert kept.reason is None
    assert json.loads(kept.variables or "") == {"name": "Ada", "id": ""}


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ("+12025550142\n2025550143\n", ["+12025550142", "2025550143"]),
        ("202,5550142\n202,5550143\n", ["2025550142", "2025550143"]),
        ("name;Phone\nAda;1\nBob\n", ["1", ""]),
        ("+1900*\n", ["+1900*"]),
        ("", []),
    ],
)
def test_numbers_of_a_list(tmp_path: Path, content: str, found: list[str]) -> None:
    path = tmp_path / "list.txt"
    path.write_text(content)
    with open_numbers(path) as numbers:
        assert [text for _, text in numbers] == found


@given(st.lists(st.tuples(st.text('abc,"\n\r ü', max_size=8), st.text('xyz,"\n ', max_size=8)), max_size=8))
def test_whatever_a_spreadsheet_writes_is_read_back(
    tmp_path_factory: pytest.TempPathFactory, pairs: list[tuple[str, str]]
) -> None:

    path = tmp_path_factory.mktemp("csv") / "file.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, quoting=csv.QUOTE_ALL)
        writer.writerow(["a", "b"])
        writer.writerows(pairs)
    with open_records(path) as source:
        found = [(r.fields["a"], r.fields["b"]) for r in source.records]
    assert found == pairs
