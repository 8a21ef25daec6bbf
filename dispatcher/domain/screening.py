"""What becomes of a record when it is loaded, before any list is asked: INVALID, or READY to be screened."""

from collections.abc import Mapping
from dataclasses import dataclass

from dispatcher.domain.campaign import Policy
from dispatcher.domain.errors import SourceError
from dispatcher.domain.phone import Phone, normalise


@dataclass(frozen=True, slots=True)
class Record:
    """One record of a source: the physical line where it starts (from 1) and its fields by column name."""

    line: int
    fields: Mapping[str, str]
    problem: str | None = None
    """Why the source itself doubts the record, for example a comma too many, which shifts every field."""


@dataclass(frozen=True, slots=True)
class Screened:
    """A record that was read: a number to dial, or the reason why it is INVALID."""

    line: int
    raw: str
    e164: str | None
    reason: str | None
    variables: Mapping[str, str]


def screen(record: Record, policy: Policy) -> Screened:
    """Read the number and the variables of one record."""
    raw = record.fields.get(policy.columns.number, "")
    values = {name: record.fields[name] for name in sorted(policy.content.variables)}
    if record.problem:
        return Screened(record.line, raw, None, record.problem, values)
    phone = normalise(raw, policy.region, policy.regions_allowed)
    if not isinstance(phone, Phone):
        return Screened(record.line, raw, phone.e164, phone.reason, values)
    if any(not value.strip() for value in values.values()):
        return Screened(record.line, raw, phone.e164, "MISSING_VARIABLE", values)
    return Screened(record.line, raw, phone.e164, None, values)


def check_columns(columns: list[str], policy: Policy) -> None:
    """Refuse a file that lacks the number's column or one that the text needs. Raises SourceError."""
    wanted = {policy.columns.number, *policy.content.variables}
    missing = sorted(wanted - set(columns))
    if missing:
        raise SourceError(
            f"the file has no column {', '.join(repr(x) for x in missing)}; its columns are "
            f"{', '.join(repr(x) for x in columns)[:200]}. Rename the column, or set [columns] number and "
            f"the names in braces of [content] text in the campaign file."
        )
