"""Records from files: what a loader reads, with the physical line where each record starts."""

import csv
import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TextIO

from dispatcher.domain.errors import SourceError
from dispatcher.domain.screening import Record

_CHUNK = 1 << 20
_LONGEST_FIELD = 4096


class Reader(Protocol):
    """What csv.reader gives: rows, and the number of the last physical line it read."""

    @property
    def line_num(self) -> int: ...
    def __next__(self) -> list[str]: ...


@dataclass(frozen=True, slots=True)
class Source:
    """An open file of destinations."""

    name: str
    columns: list[str]
    records: Iterator[Record]


def content_digest(path: Path) -> str:
    """SHA-256 of the file's bytes, as hex. Raises SourceError."""
    digest = hashlib.sha256()
    if path.exists() and not path.is_dir() and not path.is_file():
        raise SourceError(f"{path} is a pipe or a device; it is read twice, so write it to a file first")
    try:
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
    except OSError as error:
        raise _unreadable(path, error) from error
    return digest.hexdigest()


@contextmanager
def open_csv(path: Path) -> Iterator[Source]:
    """A comma-separated file in UTF-8 (with or without BOM) whose first line names the columns.

    Raises SourceError that names the line and, for a wrong encoding, the byte.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(_checked(file, path), strict=True)
            csv.field_size_limit(_LONGEST_FIELD)
            columns = _header(reader, path)
            yield Source(path.name, columns, _records(reader, columns, path))
    except OSError as error:
        raise _unreadable(path, error) from error


def _header(reader: Reader, path: Path) -> list[str]:
    try:
        columns = [name.strip() for name in next(reader)]
    except StopIteration:
        raise SourceError(f"{path} is empty; its first line must name the columns") from None
    except csv.Error as error:
        raise SourceError(f"{path} line 1 is no CSV: {error}") from None
    if len(set(columns)) < len(columns):
        raise SourceError(f"{path} names a column twice: {', '.join(columns)}")
    return columns


def _records(reader: Reader, columns: list[str], path: Path) -> Iterator[Record]:
    start = reader.line_num + 1
    while True:
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            if "unexpected end" in str(error):
                raise SourceError(f"{path} line {start}: a quote is opened here and never closed") from None
            raise SourceError(f"{path} line {reader.line_num} is no CSV: {error}") from None
        line, start = start, reader.line_num + 1
        if not row:
            continue  # an empty line is no record
        fields = dict(zip(columns, row + [""] * (len(columns) - len(row)), strict=False))
        yield Record(line, fields, "TOO_MANY_FIELDS" if len(row) > len(columns) else None)


def _checked(file: TextIO, path: Path) -> Iterator[str]:
    """Lines of text; refuses what is no text, with the place of the first wrong byte."""
    number = 0
    try:
        for line in file:
            number += 1
            if "\x00" in line:
                raise SourceError(f"{path} line {number} holds a NUL byte: this is no text file")
            yield line
    except UnicodeDecodeError:
        number, byte = _first_wrong_byte(path)
        raise SourceError(
            f"{path} line {number} is not UTF-8 (byte {byte} of the file); save it as UTF-8 and load it again"
        ) from None


def _first_wrong_byte(path: Path) -> tuple[int, int]:
    offset = 0
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            try:
                line.decode()
            except UnicodeDecodeError as error:
                return number, offset + error.start
            offset += len(line)
    return 0, 0


def _unreadable(path: Path, error: OSError) -> SourceError:
    return SourceError(f"{path} cannot be read: {error.strerror or error}")
