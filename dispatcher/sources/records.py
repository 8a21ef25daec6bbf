"""Records from files: what a loader reads, with the physical line where each record starts. Constant memory."""

import codecs
import csv
import hashlib
import io
import json
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from stat import S_ISREG
from typing import Any, Protocol, TextIO

import orjson

from dispatcher.domain.errors import SourceError
from dispatcher.domain.loading import FileFormat, RecordFile
from dispatcher.domain.reasons import Fault
from dispatcher.domain.screening import Record, find_number_column, looks_like_number

_CHUNK = 1 << 20
_LONGEST_FIELD = 4096
_LONGEST_LINE = 1 << 20
STDIN = Path("-")
_KEY = re.compile(r'"\s*:')
_DIGITS = re.compile(r"[^A-Za-z]*([0-9][^A-Za-z]*){2,}")
_AREA_CODE = re.compile(r"[2-9][0-9]{2}")
_LOCAL = re.compile(r"[2-9][0-9]{6}")


class CsvReader(Protocol):
    """What csv.reader gives: rows, and the number of the last physical line it read."""

    @property
    def line_num(self) -> int: ...
    def __next__(self) -> list[str]: ...


@contextmanager
def regular_file(path: Path, folder: Path | None = None) -> Iterator[Path]:
    """A file that can be read twice: `path` itself, or a copy of what comes through stdin ('-') or a pipe.

    The copy stands in `folder` (default: the system's) and is gone afterwards. Raises SourceError.
    """
    if path != STDIN and not path.is_fifo():
        yield path
        return
    with tempfile.NamedTemporaryFile(prefix="dsp-", dir=folder) as copy:
        try:
            if path == STDIN:
                shutil.copyfileobj(sys.stdin.buffer, copy, _CHUNK)
            else:
                with path.open("rb") as pipe:
                    shutil.copyfileobj(pipe, copy, _CHUNK)
            copy.flush()
        except OSError as error:
            raise SourceError(f"what came through the pipe cannot be kept: {error.strerror or error}") from error
        try:
            yield Path(copy.name)
        except SourceError as error:  # the copy's name means nothing to anybody
            raise SourceError(str(error).replace(copy.name, "stdin" if path == STDIN else str(path))) from error


def content_digest(path: Path) -> str:
    """SHA-256 of the file's bytes, as hex. Raises SourceError."""
    digest = hashlib.sha256()
    try:
        _require_file(path)
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
    except OSError as error:
        raise _unreadable(path, error) from error
    return digest.hexdigest()


def _require_file(path: Path) -> None:
    if not S_ISREG(path.stat().st_mode) and not path.is_dir():
        raise SourceError(f"{path} is a pipe or device; it is read twice, so write it to a file first")


@contextmanager
def open_records(path: Path, format_: FileFormat | None = None) -> Iterator[RecordFile]:
    """A file of records in UTF-8, with or without BOM; its format is guessed when none is given.

    Raises SourceError that names the line and, for a wrong encoding, the byte.
    """
    with _lines(path) as (first, lines, position):
        format_ = format_ or _guess_format(path, first)
        if format_ is FileFormat.JSONL:
            columns, records = _json_lines(lines, path)
        else:
            reader = _csv_reader(first, lines)
            columns = _header(reader, path)
            records = _records(reader, columns, path)
        yield RecordFile(path.name, format_, columns, records, position)


@contextmanager
def open_numbers(path: Path) -> Iterator[Iterator[tuple[int, str]]]:
    """(line, text) of each number of a list.

    One number a line; or the column of a CSV file whose header names it; or pairs 'area code,number', as
    registries publish them. Raises SourceError.
    """
    with _lines(path) as (first, lines, _):
        yield _numbers(_csv_reader(first, lines), path)


@contextmanager
def _lines(path: Path) -> Iterator[tuple[str, Iterator[str], Callable[[], int]]]:
    """The first line, all lines (the first one too), and how many bytes were read."""
    try:
        _require_file(path)
        raw = path.open("rb")
    except OSError as error:
        raise _unreadable(path, error) from error
    with raw, io.TextIOWrapper(raw, encoding="utf-8-sig", newline="") as file:
        lines = _checked(file, path)
        skipped: list[str] = []
        for first in lines:
            skipped.append(first)
            if first.strip():
                break
        else:
            first = ""
        yield first, chain(skipped, lines), raw.tell


def _guess_format(path: Path, first: str) -> FileFormat:
    named = path.suffix.casefold() in (".jsonl", ".ndjson")
    return FileFormat.JSONL if named or first.lstrip().startswith("{") else FileFormat.CSV


def _csv_reader(first: str, lines: Iterator[str]) -> CsvReader:
    """The delimiter is the one that makes the most columns of the first line; the comma if none does."""
    delimiter = max(",;\t", key=lambda d: len(next(csv.reader([first], delimiter=d), [])))
    csv.field_size_limit(_LONGEST_FIELD)
    return csv.reader(lines, delimiter=delimiter, strict=True)


def _rows(reader: CsvReader, path: Path) -> Iterator[tuple[int, list[str]]]:
    """Each row that is not empty, with the line where it starts."""
    start = reader.line_num + 1
    while True:
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            if "unexpected end" in str(error):
                raise SourceError(f"{path} line {start}: a quote is opened here and never closed") from None
            if "field limit" in str(error) and reader.line_num > start:
                raise SourceError(f"{path} line {start}: a quote is opened here and closed nowhere near") from None
            raise SourceError(f"{path} line {reader.line_num} is no CSV: {error}") from None
        line, start = start, reader.line_num + 1
        if row:
            yield line, row


def _header(reader: CsvReader, path: Path) -> list[str]:
    _, row = next(_rows(reader, path), (1, []))
    if not row:
        raise SourceError(f"{path} is empty; its first line must name the columns")
    columns = [name.strip() for name in row]
    if any(looks_like_number(name) for name in columns):
        raise SourceError(f"{path} has no header: its first line holds a number; put a line with column names first")
    if len(set(columns)) < len(columns):
        raise SourceError(f"{path} names a column twice: {', '.join(columns)}")
    return columns


def _records(reader: CsvReader, columns: list[str], path: Path) -> Iterator[Record]:
    width = len(columns)
    for line, row in _rows(reader, path):
        if len(row) < width:
            row += [""] * (width - len(row))
        yield Record(line, dict(zip(columns, row, strict=False)), Fault.TOO_MANY_FIELDS if len(row) > width else None)


def _json_lines(lines: Iterator[str], path: Path) -> tuple[list[str], Iterator[Record]]:
    records = (_json_record(line, number, path) for number, line in enumerate(lines, 1) if line.strip())
    first = next(records, None)
    if first is None:
        raise SourceError(f"{path} is empty; it must hold one JSON object a line")
    return list(first.fields), chain([first], records)


def _json_record(text: str, line: int, path: Path) -> Record:
    fields = _simple_fields(text)
    return Record(line, fields) if fields is not None else _strict_record(text, line, path)


def _simple_fields(text: str) -> dict[str, str] | None:
    """The fields of an object of strings and positive integers with distinct keys; None: use the strict reader."""
    try:
        document = None if "\\u0000" in text else orjson.loads(text)
    except orjson.JSONDecodeError:
        return None
    # json keeps the last of two equal keys: with as many '":' as keys there are no two
    if type(document) is not dict or len(_KEY.findall(text)) != len(document):
        return None
    for name, value in document.items():
        if type(value) is int and value > 0:
            document[name] = str(value)
        elif type(value) is not str:
            return None
    return document


def _strict_record(text: str, line: int, path: Path) -> Record:
    problems: list[Fault] = []

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            problems.append(Fault.DOUBLE_KEY)
        return found

    try:
        # numbers stay as they are written: a float would change digits
        document = json.loads(text, object_pairs_hook=once, parse_int=str, parse_float=str, parse_constant=str)
    except json.JSONDecodeError as error:
        raise SourceError(f"{path} line {line} column {error.colno} is no JSON: {error.msg}") from None
    except RecursionError:
        raise SourceError(f"{path} line {line} is nested too deeply") from None
    if not isinstance(document, dict):
        raise SourceError(f"{path} line {line} is no JSON object; write one {{...}} a line")
    if any(isinstance(value, dict | list) for value in document.values()):
        problems.append(Fault.NOT_FLAT)
    fields = {name: _plain(value) for name, value in document.items()}
    if any("\x00" in value or (not value.isprintable() and _has_half(value)) for value in fields.values()):
        problems.append(Fault.BAD_CHARACTERS)
        fields = {name: value.replace("\x00", "").encode("utf-8", "replace").decode() for name, value in fields.items()}
    return Record(line, fields, problems[0] if problems else None)


def _plain(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return value if isinstance(value, str) else "" if value is None else json.dumps(value)


def _has_half(value: str) -> bool:
    return any("\ud800" <= character <= "\udfff" for character in value)


def _numbers(reader: CsvReader, path: Path) -> Iterator[tuple[int, str]]:
    rows = _rows(reader, path)
    first = next(rows, None)
    if first is None:
        return
    place = 0
    if not any(_DIGITS.fullmatch(cell) for cell in first[1]):
        place = find_number_column(first[1])
    else:
        rows = chain([first], rows)
    for line, row in rows:
        pair = len(row) == 2 and _AREA_CODE.fullmatch(row[0]) and _LOCAL.fullmatch(row[1])
        yield line, "".join(row) if pair else row[place] if place < len(row) else ""


def _checked(file: TextIO, path: Path) -> Iterator[str]:
    """Lines of text. Raises SourceError with the position of the first byte that is not UTF-8."""
    number, rest = 0, ""
    try:
        while chunk := file.read(_CHUNK):
            lines = io.StringIO(rest + chunk, newline="").readlines()
            if "\x00" in chunk or max(map(len, lines)) >= _LONGEST_LINE:
                raise _no_text(lines, number, path)
            rest = lines.pop()  # it may continue in the next chunk
            number += len(lines)
            yield from lines
        if rest:
            yield rest
    except UnicodeDecodeError:
        number, byte = _first_wrong_byte(path)
        raise SourceError(
            f"{path} line {number} is not UTF-8 (byte {byte} of the file); save it as UTF-8 and load it again"
        ) from None
    except OSError as error:
        raise _unreadable(path, error) from error


def _no_text(lines: list[str], before: int, path: Path) -> SourceError:
    for number, line in enumerate(lines, before + 1):
        if "\x00" in line:
            return SourceError(f"{path} line {number} holds a NUL byte: this is not a text file")
        if len(line) >= _LONGEST_LINE:
            break
    return SourceError(f"{path} line {number} is longer than {_LONGEST_LINE} characters")


def _first_wrong_byte(path: Path) -> tuple[int, int]:
    decoder = codecs.getincrementaldecoder("utf-8")()
    offset, lines = 0, 1
    with path.open("rb") as file:
        while True:
            chunk = file.read(_CHUNK)
            begun = decoder.getstate()[0]
            try:
                decoder.decode(chunk, final=not chunk)
            except UnicodeDecodeError as error:
                return lines + (begun + chunk)[: error.start].count(b"\n"), offset - len(begun) + error.start
            if not chunk:
                return 0, 0
            offset, lines = offset + len(chunk), lines + chunk.count(b"\n")


def _unreadable(path: Path, error: OSError) -> SourceError:
    return SourceError(f"{path} cannot be read: {error.strerror or error}")
