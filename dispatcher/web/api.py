"""The way in for services: JSON over HTTP, a bearer key, an Idempotency-Key that makes commands safe to repeat."""

import asyncio
import csv
import hmac
import io
import json
import re
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, HTTPException, Request
from fastapi.responses import StreamingResponse
from starlette.requests import ClientDisconnect

from dispatcher.domain.campaign import Campaign, read_policy
from dispatcher.domain.errors import ServerError, UsageError
from dispatcher.domain.loading import FileFormat, LoadReport
from dispatcher.domain.report import REJECT_COLUMNS, campaign_document, reject_cells, status_document
from dispatcher.flow import control
from dispatcher.ports import Services

MOST_CAMPAIGN_BYTES = 64 * 1024
PROGRESS_BYTES, PROGRESS_EVERY_S = 64 * 1024, 30.0
"""At least so much of a body must come in this time, unless it ends: a slower client is answered 408."""
LoadFile = Callable[[int, Path, str, FileFormat | None], LoadReport]
"""Loads a file in a thread of its own: campaign, file, its name, its format."""


@dataclass(frozen=True, slots=True)
class Api:
    """What the routes need."""

    services: Services
    key: bytes
    spool: Path
    most_load_bytes: int
    load_file: LoadFile
    loading: asyncio.Semaphore
    uploading: asyncio.Semaphore
    """So many bodies stand in the spool at once."""


def _api(request: Request, authorization: Annotated[str, Header()] = "") -> Api:
    """The API, for who knows the key."""
    api: Api = request.app.state.api
    scheme, _, key = authorization.partition(" ")
    if scheme.casefold() != "bearer" or not hmac.compare_digest(key.strip().encode(), api.key):
        raise HTTPException(401, "send the header: Authorization: Bearer KEY", {"WWW-Authenticate": "Bearer"})
    return api


Known = Annotated[Api, Depends(_api)]
RequestId = Annotated[str | None, Header(alias="Idempotency-Key", min_length=1, max_length=200)]
router = APIRouter(prefix="/v1")


@router.post("/campaigns", status_code=201)
async def create(api: Known, request: Request, request_id: RequestId = None) -> dict[str, Any]:
    """Make a campaign: the body is a campaign file as JSON."""
    body = bytearray()

    def take(chunk: bytes) -> None:
        body.extend(chunk)
        if len(body) > MOST_CAMPAIGN_BYTES:
            raise HTTPException(413, f"a campaign has at most {MOST_CAMPAIGN_BYTES} bytes")

    await _receive(request, take)
    return campaign_document(await control.create(read_policy(_object(bytes(body))), api.services, request_id))


@router.post("/campaigns/{campaign_id}/loads", status_code=201)
async def load(
    api: Known, campaign_id: int, request: Request, name: str = "upload", format: FileFormat | None = None
) -> dict[str, Any]:
    """Load the body, a file of destinations, into a campaign; the same bytes again change nothing."""
    await api.services.store.campaign(campaign_id)
    if format is None and "ndjson" in request.headers.get("content-type", ""):
        format = FileFormat.JSONL
    name = re.sub(r"[\x00-\x1f\x7f]", "", name)[:200]
    async with api.uploading, _kept(api, request) as path, api.loading:
        report = await asyncio.to_thread(api.load_file, campaign_id, path, name, format)
    return {"load": report.load_id, "was_done": report.was_done, "rows": report.rows}


@router.get("/campaigns/{campaign_id}/loads/{load_id}/rejects")
async def rejects(api: Known, campaign_id: int, load_id: int) -> StreamingResponse:
    """The records of a load that are not dialled, as CSV: why, and what names them."""
    store = api.services.store
    ticket = await store.find_load(await store.campaign(campaign_id), load_id)

    async def lines() -> AsyncIterator[str]:
        yield _csv_line(REJECT_COLUMNS)
        async with aclosing(store.rejects(ticket)) as found:
            async for reject in found:
                yield _csv_line(reject_cells(reject))

    return StreamingResponse(lines(), media_type="text/csv")


def _csv_line(cells: Sequence[str]) -> str:
    line = io.StringIO()
    csv.writer(line, lineterminator="\n").writerow(cells)
    return line.getvalue()


async def _receive(request: Request, take: Callable[[bytes], None]) -> None:
    """Give the body to `take`, piece by piece. Raises HTTPException for a client that is too slow to keep its place."""
    loop, came = asyncio.get_running_loop(), 0
    try:
        async with asyncio.timeout(PROGRESS_EVERY_S) as patience:
            async for chunk in request.stream():
                take(chunk)
                came += len(chunk)
                if came >= PROGRESS_BYTES:
                    came = 0
                    patience.reschedule(loop.time() + PROGRESS_EVERY_S)
    except TimeoutError:
        raise HTTPException(408, "the body came too slowly; nothing was changed") from None


@asynccontextmanager
async def _kept(api: Api, request: Request) -> AsyncIterator[Path]:
    """The body as a file, which is gone afterwards."""
    try:
        api.spool.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(prefix="upload-", dir=api.spool) as file:

            def take(chunk: bytes) -> None:
                file.write(chunk)
                if file.tell() > api.most_load_bytes:
                    raise HTTPException(413, f"a load has at most {api.most_load_bytes} bytes; split the file")

            await _receive(request, take)
            file.flush()
            yield Path(file.name)
    except ClientDisconnect:
        raise HTTPException(400, "the body ended before its end; nothing was loaded") from None
    except OSError as error:
        raise ServerError(
            f"the file cannot be kept while it is loaded: {error.strerror}; nothing was loaded"
        ) from error


@router.post("/campaigns/{campaign_id}/start")
async def start(api: Known, campaign_id: int, request_id: RequestId = None) -> dict[str, Any]:
    """Begin to dial."""
    return await _control(control.start, api, campaign_id, request_id)


@router.post("/campaigns/{campaign_id}/pause")
async def pause(api: Known, campaign_id: int, request_id: RequestId = None) -> dict[str, Any]:
    """Stop dialling: when this is answered, no new call is permitted."""
    return await _control(control.pause, api, campaign_id, request_id)


@router.post("/campaigns/{campaign_id}/resume")
async def resume(api: Known, campaign_id: int, request_id: RequestId = None) -> dict[str, Any]:
    """Dial again after a pause."""
    return await _control(control.resume, api, campaign_id, request_id)


@router.post("/campaigns/{campaign_id}/abort")
async def abort(api: Known, campaign_id: int, request_id: RequestId = None) -> dict[str, Any]:
    """End for good."""
    return await _control(control.abort, api, campaign_id, request_id)


@router.get("/campaigns/{campaign_id}/status")
async def status(api: Known, campaign_id: int) -> dict[str, Any]:
    """Progress; `rows` is the number of records that were loaded, and the counts add up to it."""
    return status_document(await api.services.store.status(await api.services.store.campaign(campaign_id)))


Verb = Callable[[int, Services, str | None], Awaitable[Campaign]]


async def _control(verb: Verb, api: Api, campaign_id: int, request_id: str | None) -> dict[str, Any]:
    return campaign_document(await verb(campaign_id, api.services, request_id))


def _object(body: bytes) -> dict[str, Any]:
    try:
        document = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"the body is no JSON: {error}") from None
    if not isinstance(document, dict):
        raise UsageError("the body must be a JSON object with the keys of a campaign file")
    return document
