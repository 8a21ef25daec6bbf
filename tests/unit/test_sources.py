"""Files of destinations: what is read, with which line, and what is refused."""

import csv
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.domain.errors import SourceError
from dispatcher.domain.screening import check_columns
from dispatcher.sources import content_digest, open_csv
from tests.factories import make_policy


def rows(tmp_path: Path, content: bytes) -> list[tuple[int, dict[str, str]]]:
    path = tmp_path / "file.csv"
    path.write_bytes(content)
    with open_csv(path) as source:
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
    with open_csv(path) as source:
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
    for read in (lambda p: open_csv(p).__enter__(), content_digest):
        with pytest.raises(SourceError, match="cannot be read"):
            read(tmp_path / name)


def test_a_missing_column_is_named_with_those_there_are() -> None:
    with pytest.raises(SourceError, match="no column 'name', 'phone'; its columns are 'tel'"):
        check_columns(["tel"], make_policy())


@given(st.lists(st.tuples(st.text('abc,"\n\r ü', max_size=8), st.text('xyz,"\n ', max_size=8)), max_size=8))
def test_whatever_a_spreadsheet_writes_is_read_back(
    tmp_path_factory: pytest.TempPathFactory, pairs: list[tuple[str, str]]
) -> None:

    path = tmp_path_factory.mktemp("csv") / "file.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, quoting=csv.QUOTE_ALL)
        writer.writerow(["a", "b"])
        writer.writerows(pairs)
    with open_csv(path) as source:
        found = [(r.fields["a"], r.fields["b"]) for r in source.records]
    assert found == pairs
