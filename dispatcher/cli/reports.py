"""dispatcher explain, dispatcher export: why each number is where it is, and all of them for other programs."""

import csv
import json as json_module
import sys
from collections.abc import Callable, Iterator
from contextlib import aclosing, contextmanager, suppress
from dataclasses import asdict
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, TextIO

import typer

from dispatcher.cli.session import call
from dispatcher.cli.show import as_json, out
from dispatcher.domain.errors import NotFound, ServerError
from dispatcher.domain.phone import mask
from dispatcher.domain.report import ExportRow, safe_cell
from dispatcher.domain.story import Story, tell
from dispatcher.flow.lists import read_numbers
from dispatcher.ports import Services

Id = Annotated[int, typer.Argument(metavar="ID")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
COLUMNS = tuple(name for name in ExportRow.__slots__ if name != "variables")


class Format(StrEnum):
    """How an export is written."""

    CSV = "csv"
    JSONL = "jsonl"


def explain(campaign_id: Id, number: str, json: Json = False) -> None:
    """Tell the whole story of one number in a campaign: what happened, why, what comes next."""

    async def verb(services: Services) -> Story:
        campaign = await services.store.campaign(campaign_id)
        (e164,) = read_numbers([number], campaign.policy.region)
        story = await services.store.story(campaign, e164)
        if story is None:
            raise NotFound(
                f"campaign {campaign_id} has no destination with that number ({mask(e164)}); a number that could not "
                "be read stands in the reject file of its load"
            )
        return story

    story = call(verb)
    lines = tell(story)
    if json:
        told = [{"at": at, "what": what} for at, what in lines]
        rows, attempts = [asdict(r) for r in story.rows], [asdict(a) for a in story.attempts]
        as_json({"state": story.row.state, "rows": rows, "attempts": attempts, "story": told})
        return
    for at, what in lines:
        out.print(f"{at:%Y-%m-%d %H:%M:%S %Z}  {what}" if at else what, soft_wrap=True, markup=False)


def export(
    campaign_id: Id,
    format_: Annotated[Format, typer.Option("--format")] = Format.CSV,
    target: Annotated[Path | None, typer.Option("--out", help="Default: stdout.")] = None,
) -> None:
    """Write every destination of a campaign with its state and result, in the order it was loaded."""

    async def verb(services: Services) -> int:
        campaign = await services.store.campaign(campaign_id)
        extra = sorted({*campaign.policy.content.variables, *campaign.policy.columns.keep})
        written = 0
        with _target(target) as file:
            write = _csv_writer(file, extra) if format_ is Format.CSV else _jsonl_writer(file)
            async with aclosing(services.store.export(campaign)) as rows:
                async for row in rows:
                    write(row)
                    written += 1
        return written

    written = call(verb)
    if target:
        out.print(f"{written} destinations written to {target}", soft_wrap=True)


@contextmanager
def _target(path: Path | None) -> Iterator[TextIO]:
    try:
        if path is None:
            yield sys.stdout
            sys.stdout.flush()
            return
        with path.open("w", newline="", encoding="utf-8") as file:
            yield file
    except BrokenPipeError:
        with suppress(OSError):
            sys.stdout.close()
        raise typer.Exit(0) from None  # whoever read has read enough
    except OSError as error:
        raise ServerError(f"{path or 'stdout'} cannot be written: {error.strerror}; choose --out PATH") from None


def _csv_writer(file: TextIO, extra: list[str]) -> Callable[[ExportRow], None]:
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow([*COLUMNS, *[safe_cell(name) for name in extra]])

    def write(row: ExportRow) -> None:
        own = [_cell(name, getattr(row, name)) for name in COLUMNS]
        writer.writerow([*own, *[safe_cell(row.variables.get(name, "")) for name in extra]])

    return write


def _cell(name: str, value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, datetime):
        return value.isoformat()
    return str(value) if name == "e164" else safe_cell(str(value))


def _jsonl_writer(file: TextIO) -> Callable[[ExportRow], None]:
    def write(row: ExportRow) -> None:
        file.write(json_module.dumps(asdict(row), default=lambda at: at.isoformat(), ensure_ascii=False) + "\n")

    return write
