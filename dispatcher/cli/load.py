"""dispatcher campaign load: a file of destinations into a campaign, and the file of those that are not dialled."""

import csv
from collections.abc import Callable, Iterator
from contextlib import aclosing, contextmanager
from pathlib import Path
from typing import Annotated, Any, TextIO

import typer
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

from dispatcher.cli.console import as_json, err, out
from dispatcher.cli.session import call
from dispatcher.cli.show import load_lines
from dispatcher.domain.errors import ServerError, UsageError
from dispatcher.domain.loading import FileFormat, LoadReport, Reject
from dispatcher.domain.report import REJECT_COLUMNS, reject_cells
from dispatcher.flow import load as flow
from dispatcher.ports import Services
from dispatcher.sources import STDIN, regular_file

_PIPE = "stdin"
"""The name of what has none."""
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def load(
    campaign_id: Annotated[int, typer.Argument(metavar="ID")],
    file: Annotated[Path, typer.Argument(help="CSV (comma, semicolon, tab) or JSON Lines, UTF-8; '-' is stdin.")],
    rejects: Annotated[Path | None, typer.Option(help="Where to write the records that are not dialled.")] = None,
    format_: Annotated[FileFormat | None, typer.Option("--format", help="Default: guessed.")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Write the report and the reject file, nothing else.")
    ] = False,
    json: Json = False,
) -> None:
    """Load a file of destinations; the same file again changes nothing."""
    with regular_file(file) as readable:
        target = _reject_file(file, campaign_id, rejects, "dry-run" if dry_run else "rejects")
        if dry_run:
            report = call(lambda services: dry_run_file(services, campaign_id, readable, target, format_))
        else:
            name = file.name if readable == file else _PIPE
            report = call(lambda services: load_file(services, campaign_id, readable, target, format_, name))
    if json:
        known = {} if dry_run else {"load": report.load_id, "was_done": report.was_done}
        as_json({**known, "dry_run": dry_run, "rows": report.rows, "rejects": str(target)})
        return
    out.print(load_lines(report, dry_run))
    out.print(f"records that are not dialled: {target}", soft_wrap=True)


def _reject_file(file: Path, campaign_id: int, rejects: Path | None, kind: str) -> Path:
    is_pipe = file == STDIN or file.is_fifo()
    own = Path(_PIPE) if is_pipe else file
    own = own.parent / f"{own.stem}.{campaign_id}.{kind}.csv"
    target = rejects or own
    if target.resolve() == file.resolve():
        raise UsageError(f"--rejects {target} is the file that is loaded; choose another")
    return target


async def load_file(
    services: Services,
    campaign_id: int,
    file: Path,
    target: Path,
    format_: FileFormat | None = None,
    name: str | None = None,
) -> LoadReport:
    """Load one file and write its reject file."""
    with _progress(file) as progress:
        ticket, report = await flow.load_file(
            campaign_id, file, services, format_=format_, name=name, progress=progress
        )
    with _written(target, "the load is done, but ") as write:
        async with aclosing(services.store.rejects(ticket)) as found:
            async for reject in found:
                write(reject)
    return report


async def dry_run_file(
    services: Services, campaign_id: int, file: Path, target: Path, format_: FileFormat | None = None
) -> LoadReport:
    """What a load of the file would do."""
    campaign = await services.store.campaign(campaign_id)
    with _written(target, "") as write:
        return await flow.dry_run_file(campaign, file, services, format_=format_, rejected=write)


@contextmanager
def _progress(file: Path) -> Iterator[flow.Progress]:
    """A bar on a terminal, by the bytes that were read."""
    bar = Progress(
        TextColumn("loading"),
        BarColumn(),
        DownloadColumn(),
        TextColumn("{task.fields[rows]} records"),
        TimeRemainingColumn(),
        console=err,
        transient=True,
        disable=not err.is_terminal,
    )
    with bar:
        task = bar.add_task("loading", total=file.stat().st_size if file.is_file() else None, rows=0)
        yield lambda rows, position: bar.update(task, completed=position, rows=rows)


@contextmanager
def _written(target: Path, so_far: str) -> Iterator[Callable[[Reject], None]]:
    """The reject file: one line for each record that is not dialled. Raises ServerError when it cannot be written."""
    try:
        with target.open("w", newline="", encoding="utf-8") as file:
            yield _reject_writer(file)
    except OSError as error:
        raise ServerError(
            f"{so_far}{target} could not be written: {error.strerror}; choose --rejects PATH and load again"
        ) from None


def _reject_writer(file: TextIO) -> Callable[[Reject], None]:
    writer: Any = csv.writer(file)
    writer.writerow(REJECT_COLUMNS)
    return lambda reject: writer.writerow(reject_cells(reject))
