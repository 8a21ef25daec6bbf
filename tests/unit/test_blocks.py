"""Blocks of records: the same ones, and the same errors, in this process and in a second one."""

import asyncio
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from bench.measure import children_of
from dispatcher.domain.errors import ServerError, SourceError
from dispatcher.domain.loading import Block
from dispatcher.domain.screening import Screened
from dispatcher.sources import blocks, open_blocks
from tests.factories import make_policy, number

GOOD = "phone,name\n" + "".join(f"{number(i % 10_000)},Ada {i}\n" for i in range(25_000))
ODD = 'phone,name\n+1202,"a\\ ""b"" \t ü\nc"\nn/a,\n2025550142,\u2028\n'


@pytest.fixture(params=["same process", "second process"])
def where(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(blocks, "LARGE", 0 if request.param == "second process" else 1 << 40)
    return str(request.param)


async def read(path: Path) -> list[Block]:
    async with open_blocks(path, None, make_policy()) as found:
        return [block async for block in found]


def rows_of(found: list[Block]) -> list[Screened]:
    return [row for block in found for row in block.rows]


async def test_the_records_in_their_order(tmp_path: Path, where: str) -> None:
    path = tmp_path / "people.csv"
    path.write_text(GOOD, encoding="utf-8")
    found = await read(path)
    rows = rows_of(found)
    assert [row.line for row in rows] == list(range(2, 25_002))
    assert rows[0] == Screened(2, number(0), number(0), None, '{"name":"Ada 0"}')
    assert [block.position for block in found] == sorted(block.position for block in found)
    assert found[-1].position == len(GOOD)
    assert max(len(block.rows) for block in found) == blocks.ROWS


async def test_odd_ones(tmp_path: Path, where: str) -> None:
    path = tmp_path / "odd.csv"
    path.write_text(ODD, encoding="utf-8")
    assert [(r.line, r.raw, r.reason) for r in rows_of(await read(path))] == [
        (2, "+1202", "NOT_A_NUMBER"),
        (4, "n/a", "BAD_CHARACTERS"),
        (5, "2025550142", "MISSING_VARIABLE"),
    ]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (GOOD.encode() + b"+1202\xff,x\n", "line 25002 is not UTF-8"),
        (GOOD.encode() + b'+1202,"x\n', "line 25002: a quote is opened here and never closed"),
        (b"a,b\n1,2\n", "the file has no column 'phone'"),
        (b"", "is empty"),
    ],
)
async def test_a_file_that_cannot_be_used(tmp_path: Path, where: str, content: bytes, said: str) -> None:
    path = tmp_path / "people.csv"
    path.write_bytes(content)
    with pytest.raises(SourceError, match=said):
        await read(path)
    assert readers() == []


async def read_until(path: Path, then: Callable[[], None]) -> None:
    """Do `then` after each block."""
    async with open_blocks(path, None, make_policy()) as found:
        async for _ in found:
            then()


def readers() -> list[int]:
    """Processes that read for us; other children are this run's servers."""
    children = children_of(os.getpid())
    return [pid for pid in children if b"dispatcher.sources.reader" in Path(f"/proc/{pid}/cmdline").read_bytes()]


def kill_readers() -> None:
    for pid in readers():
        os.kill(pid, signal.SIGKILL)


def stop() -> None:
    raise asyncio.CancelledError


async def test_a_reader_that_is_killed_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "LARGE", 0)
    path = tmp_path / "people.csv"
    path.write_text(GOOD * 40, encoding="utf-8")
    with pytest.raises(ServerError, match=r"the process that reads the file ended \(exit -9\); load the file again"):
        await read_until(path, kill_readers)


async def test_a_loader_that_stops_early_leaves_no_reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "LARGE", 0)
    path = tmp_path / "people.csv"
    path.write_text(GOOD * 40, encoding="utf-8")  # more than a pipe holds: the process would never end by itself
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(read_until(path, stop), timeout=20)
    assert readers() == []


async def test_a_loader_that_fails_while_much_is_waiting_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The pipe is full and nobody reads it: asyncio would never report the end of the process."""
    monkeypatch.setattr(blocks, "LARGE", 0)
    path = tmp_path / "people.csv"
    path.write_text(GOOD * 40, encoding="utf-8")

    async def fail_late() -> None:
        async with open_blocks(path, None, make_policy()) as found:
            async for _ in found:
                await asyncio.sleep(3)
                raise ServerError("the database is away")

    with pytest.raises(ServerError, match="the database is away"):
        await asyncio.wait_for(fail_late(), timeout=20)
    assert readers() == []
