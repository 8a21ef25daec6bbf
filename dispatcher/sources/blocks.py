"""Blocks of screened records. A large file is read and screened by a second process."""

import asyncio
import gc
import marshal
import pickle
import struct
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

from dispatcher.domain.campaign import Policy
from dispatcher.domain.errors import ServerError, SourceError
from dispatcher.domain.loading import Block, FileFormat, RecordFile
from dispatcher.domain.screening import Screen, Screened, make_screen
from dispatcher.sources.records import open_records

ROWS = 10_000
"""Of a block."""
LARGE = 4 << 20
"""Size in bytes from which on a file is read by a second process."""
_AHEAD = 4 << 20
_HEAD = struct.Struct("!Q?Q")
"""Length of the body; whether it is a block (if not, an error message); bytes of the file read so far."""


_as_screened: Callable[[tuple[Any, ...]], Screened] = partial(tuple.__new__, Screened)
"""As Screened._make, four times faster."""


@dataclass(frozen=True, slots=True)
class Job:
    """The input of the reading process."""

    path: Path
    format_: FileFormat
    screen: Screen


@asynccontextmanager
async def open_blocks(path: Path, format_: FileFormat | None, policy: Policy) -> AsyncIterator[AsyncIterator[Block]]:
    """The records of a file, screened, in its order. Raises SourceError, also while they are read."""
    with open_records(path, format_) as source:
        screen = make_screen(source.columns, policy)
        if not _is_large(path):
            yield _read(source, screen)
            return
    async with _process(Job(path, source.format_, screen)) as blocks:
        yield blocks


def _is_large(path: Path) -> bool:
    return path.stat().st_size >= LARGE


async def _read(source: RecordFile, screen: Screen) -> AsyncIterator[Block]:
    while rows := list(map(screen, islice(source.records, ROWS))):
        yield Block(rows, source.position())


@asynccontextmanager
async def _process(job: Job) -> AsyncIterator[AsyncIterator[Block]]:
    # in a session of its own, so that Ctrl-C reaches the loader only; the loader ends the reader
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "dispatcher.sources.reader"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=_AHEAD,
        start_new_session=True,
    )
    assert process.stdin
    assert process.stdout
    try:
        process.stdin.write(pickle.dumps(job))
        process.stdin.close()
        async with aclosing(_ahead(_received(process.stdout, process))) as blocks:
            yield blocks
    finally:
        if process.returncode is None:
            process.kill()
        # asyncio reports the end of a process only when its output was read to the end
        while await process.stdout.read(_AHEAD):
            pass
        await process.wait()


async def _ahead(blocks: AsyncIterator[Block]) -> AsyncGenerator[Block, None]:
    """The same blocks; the next one is received while the caller works on the last."""
    coming = asyncio.ensure_future(anext(blocks, None))
    try:
        while block := await coming:
            coming = asyncio.ensure_future(anext(blocks, None))
            yield block
    finally:
        coming.cancel()
        await asyncio.wait([coming])
        if not coming.cancelled():
            coming.exception()  # else asyncio would log that it was never retrieved


async def _received(stream: asyncio.StreamReader, process: asyncio.subprocess.Process) -> AsyncIterator[Block]:
    while True:
        try:
            length, is_block, position = _HEAD.unpack(await stream.readexactly(_HEAD.size))
            body = await stream.readexactly(length)
        except asyncio.IncompleteReadError:
            code = await process.wait()
            raise ServerError(f"the process that reads the file ended (exit {code}); load the file again") from None
        if not is_block:
            raise SourceError(body.decode())
        if not length:
            return
        yield Block(_unpack(body), position)


def _unpack(body: bytes) -> list[Screened]:
    # garbage collections that so many new tuples trigger take a quarter of the loader's CPU time
    gc.disable()
    try:
        return list(map(_as_screened, marshal.loads(body)))
    finally:
        gc.enable()


def send_blocks(job: Job, out: BinaryIO) -> None:
    """The work of the reading process: write the file's blocks and an empty one at the end, or an error message."""

    def send(body: bytes, *, is_block: bool, position: int = 0) -> None:
        out.write(_HEAD.pack(len(body), is_block, position) + body)
        out.flush()

    try:
        with open_records(job.path, job.format_) as source:
            screened = map(tuple, map(job.screen, source.records))
            while rows := list(islice(screened, ROWS)):
                send(marshal.dumps(rows), is_block=True, position=source.position())
        send(b"", is_block=True)
    except SourceError as error:
        send(str(error).encode(), is_block=False)
