"""What becomes of a record when it is loaded, before any list is asked: INVALID, or READY to be screened."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import orjson

from dispatcher.domain.campaign import Policy
from dispatcher.domain.errors import SourceError
from dispatcher.domain.phone import Phone, normalise
from dispatcher.domain.reasons import Fault


class Record(NamedTuple):
    """One record of a source: the physical line where it starts (from 1) and its fields by column name."""

    line: int
    fields: Mapping[str, str]
    problem: Fault | None = None
    """Why the source itself doubts the record, for example a comma too many, which shifts every field."""


class Screened(NamedTuple):
    """A record that was read: a number to dial, or the reason why it is INVALID."""

    line: int
    raw: str
    e164: str | None
    reason: str | None
    """The word of a Fault: plain, as it comes from another process."""
    variables: str | None
    """The values that are stored with the destination, as a JSON object."""


@dataclass(frozen=True, slots=True)
class ColumnMap:
    """Which column of a file holds what."""

    number: str
    variables: Mapping[str, str]
    """The text's variables, by name -> column."""
    kept: Mapping[str, str]
    """Columns that are stored for exports only."""


@dataclass(frozen=True, slots=True)
class Screen:
    """Reads the number and the variables of records."""

    columns: ColumnMap
    region: str
    regions_allowed: frozenset[str]

    def __call__(self, record: Record) -> Screened:
        line, fields, problem = record
        columns = self.columns
        raw = fields.get(columns.number, "")
        values = {name: fields.get(column, "") for name, column in columns.variables.items()}
        kept = values
        if columns.kept:
            kept = {name: fields.get(column, "") for name, column in columns.kept.items()} | values
        text = orjson.dumps(kept).decode() if kept else None
        if problem:
            return Screened(line, raw, None, problem.value, text)
        phone = normalise(raw, self.region, self.regions_allowed)
        if not isinstance(phone, Phone):
            return Screened(line, raw, phone.e164, phone.reason.value, text)
        is_complete = all(map(str.strip, values.values()))
        return Screened(line, raw, phone.e164, None if is_complete else Fault.MISSING_VARIABLE.value, text)


def make_screen(columns: Sequence[str], policy: Policy) -> Screen:
    """How the records of a file with these columns are read. Raises SourceError."""
    return Screen(map_columns(columns, policy), policy.region, policy.regions_allowed)


def map_columns(columns: Sequence[str], policy: Policy) -> ColumnMap:
    """Find the number's column and those that the text needs. Raises SourceError.

    A name of the campaign file is a column's name; what it leaves open is guessed: the number by the usual names,
    a variable by its own name in any case, with spaces for underscores.
    """
    wanted = policy.columns
    plain = {_plain(column): column for column in reversed(columns)}
    number = wanted.number or columns[find_number_column(columns)]
    named = {name: wanted.variables.get(name, name) for name in sorted({*policy.content.variables, *wanted.keep})}
    found = {name: column if column in columns else plain.get(_plain(column)) for name, column in named.items()}
    missing = [named[name] for name, column in found.items() if column is None]
    if number not in columns:
        missing.append(number)
    if missing:
        raise SourceError(
            f"the file has no column {', '.join(repr(x) for x in missing)}; its columns are {_listed(columns)}. "
            "Rename the column, or say in the campaign file which one it is: [columns] number = '...', "
            "[columns.variables] name = '...'; what is in [columns] keep may also be taken out there."
        )
    places = {name: column for name, column in found.items() if column is not None}
    return ColumnMap(
        number,
        {name: places[name] for name in sorted(policy.content.variables)},
        {name: places[name] for name in wanted.keep},
    )


_NUMBER_NAMES = (
    "phone",
    "phonenumber",
    "number",
    "msisdn",
    "e164",
    "mobile",
    "mobilephone",
    "mobilenumber",
    "cell",
    "cellphone",
    "telephone",
    "tel",
    "to",
    "destination",
)


def find_number_column(columns: Sequence[str]) -> int:
    """The place of the one column that is named like a phone number; 'phone' wins. Raises SourceError."""
    found = [i for i, column in enumerate(columns) if _plain(column) in _NUMBER_NAMES]
    exact = [i for i in found if columns[i] == "phone"]
    if len(found) == 1 or exact:
        return (exact or found)[0]
    if found:
        several = ", ".join(repr(columns[i]) for i in found)
        raise SourceError(f"several columns may hold the number ({several}); say which: [columns] number = '...'")
    raise SourceError(
        f"the file has no column 'phone', and none that is named like a phone number; its columns are "
        f"{_listed(columns)}. Rename the column, or set [columns] number in the campaign file."
    )


def looks_like_number(text: str) -> bool:
    """Is this a number rather than a name? Such a text is never shown."""
    return sum(c.isdigit() for c in text) >= 7


def _plain(name: str) -> str:
    return "".join(c for c in name.casefold() if c.isalnum())


def _listed(columns: Sequence[str]) -> str:
    return ", ".join(repr("***" if looks_like_number(x) else x) for x in columns)[:200]
