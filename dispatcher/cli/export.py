"""dispatcher export: every destination, for other programs."""

import csv
import io
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import aclosing, contextmanager, suppress
from enum import StrEnum
from pathlib import Path
from typing import IO, Annotated

import typer

from dispatcher.cli.console import out
from dispatcher.cli.parquet import parquet_writer
from dispatcher.cli.session import call
from dispatcher.domain.errors import ServerError
from dispatcher.domain.report import EXPORT_COLUMNS, ExportFormat, safe_cell
from dispatcher.ports import Services


class OutputFormat(StrEnum):
    """How an export is written."""

    CSV = "csv"
    JSONL = "jsonl"
    PARQUET = "parquet"


def export(
    campaign_id: Annotated[int, typer.Argument(metavar="ID")],
    format_: Annotated[
        OutputFormat, typer.Option("--format", help="Parquet needs the extra 'parquet'.")
    ] = OutputFormat.CSV,
    target: Annotated[Path | None, typer.Option("--out", help="Default: stdout.")] = None,
) -> None:
    """Write every destination of a campaign with its state and result, in the order it was loaded."""

    async def verb(services: Services) -> int:
        campaign = await services.store.campaign(campaign_id)
        extra = sorted({*campaign.policy.content.variables, *campaign.policy.columns.keep})
        written = 0
        with _target(target) as file, _writer(format_, file, extra) as write:
            stored = ExportFormat.CSV if format_ is OutputFormat.CSV else ExportFormat.JSONL
            async with aclosing(services.store.export(campaign, stored, extra)) as blocks:
                async for n, lines in blocks:
                    write(lines)
                    written += n
        return written

    written = call(verb)
    if target:
        out.print(f"{written} destinations written to {target}", soft_wrap=True)


@contextmanager
def _target(path: Path | None) -> Iterator[IO[bytes]]:
    """Where an export goes. Raises ServerError."""
    try:
        if path is None:
            yield sys.stdout.buffer
            sys.stdout.buffer.flush()
        elif path.exists() and not path.is_file():  # a device or a pipe
            with path.open("wb") as file:
                yield file
        else:
            with _replaced(path) as file:
                yield file
    except BrokenPipeError:
        with suppress(OSError):
            sys.stdout.close()
        raise typer.Exit(0) from None  # the reader has closed the pipe
    except OSError as error:
        raise ServerError(f"{path or 'stdout'} cannot be written: {error.strerror}; choose --out PATH") from None


@contextmanager
def _replaced(path: Path) -> Iterator[IO[bytes]]:
    """A file that appears only when it is complete: half an export looks like a whole one."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
        mask = os.umask(0)
        os.umask(mask)
        Path(name).chmod(path.stat().st_mode if path.exists() else 0o666 & ~mask)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


@contextmanager
def _writer(format_: OutputFormat, file: IO[bytes], extra: list[str]) -> Iterator[Callable[[bytes], object]]:
    """Writes lines as the store gives them."""
    if format_ is OutputFormat.PARQUET:
        with parquet_writer(file, extra) as write:
            yield write
        return
    if format_ is OutputFormat.CSV:
        header = io.StringIO()
        csv.writer(header, lineterminator="\n").writerow([*EXPORT_COLUMNS, *map(safe_cell, extra)])
        file.write(header.getvalue().encode())
    yield file.write
