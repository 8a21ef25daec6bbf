"""Load: records are read in blocks and deduplicated; all of them become visible at once at the end."""

from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

from dispatcher.domain.campaign import Campaign
from dispatcher.domain.errors import ServerError, SourceError, UsageError
from dispatcher.domain.loading import (
    Block,
    Deduplicated,
    Deduplicator,
    FileFormat,
    LoadReport,
    LoadTicket,
    Reject,
    load_identity,
)
from dispatcher.flow.lists import screen_campaign
from dispatcher.ports import Services

LEASE = timedelta(seconds=60)
_EMPTY = "{name} holds no record below its header; nothing was loaded"
Progress = Callable[[int, int], None]
"""Called with the records and the bytes of the file that were read so far."""


def _no_progress(rows: int, position: int) -> None: ...


async def load_file(
    campaign_id: int,
    path: Path,
    services: Services,
    *,
    format_: FileFormat | None = None,
    name: str | None = None,
    progress: Progress = _no_progress,
) -> tuple[LoadTicket, LoadReport]:
    """Load a file into a campaign; all of its records or none. The same file again changes nothing.

    Raises SourceError (a file that cannot be used), NotAllowed (a finished campaign, another loader), NotFound,
    ServerError.
    """
    campaign = await services.store.campaign(campaign_id)
    async with services.sources.blocks(path, format_, campaign.policy) as blocks:
        identity = load_identity(await services.sources.digest(path), campaign.policy)
        name = name or path.name
        ticket = await services.store.begin_load(campaign, identity, name, owner=services.ids.owner(), lease=LEASE)
        if ticket.is_done:
            report = await services.store.load_report(ticket)
        else:
            report = await _fill(ticket, name, blocks, services, progress)
    if ticket.lists_version is not None:  # also of a loader that died here
        if await services.store.dnc_rescreen(ticket.lists_version):
            await screen_campaign(await services.store.campaign(campaign.id), services)
        await services.store.load_screened(ticket)
    return ticket, report


async def _fill(
    ticket: LoadTicket, name: str, blocks: AsyncIterator[Block], services: Services, progress: Progress
) -> LoadReport:
    try:
        rows, deduplicator = 0, Deduplicator()
        async for block in blocks:
            if services.stopping():
                raise SourceError("the load was stopped before its end; nothing was kept, load the file again")
            await services.store.stage(ticket, deduplicator.split(block.rows), lease=LEASE)
            rows += len(block.rows)
            progress(rows, block.position)
        if rows == 0:
            raise SourceError(_EMPTY.format(name=name))
        return await services.store.finish_load(ticket, lease=LEASE)
    except BaseException as error:
        with suppress(ServerError):  # then its lease ends, and the tick gives it up
            await services.store.fail_load(ticket, str(error) or type(error).__name__)
        raise


async def load_spooled(campaign_id: int, name: str, find: Callable[[], Path], services: Services) -> LoadReport:
    """A load that nobody waits for: the campaign's status says why it cannot be done. Raises as `load_file` does."""
    try:
        return (await load_file(campaign_id, find(), services, name=name))[1]
    except UsageError as error:
        await services.store.note_failed_load(campaign_id, name, str(error))
        raise


async def dry_run_file(
    campaign: Campaign,
    path: Path,
    services: Services,
    *,
    format_: FileFormat | None = None,
    rejected: Callable[[Reject], None],
) -> LoadReport:
    """What a load would make of a file: nothing is kept. Raises as `load_file` does."""
    async with services.sources.blocks(path, format_, campaign.policy) as blocks:
        identity = load_identity(await services.sources.digest(path), campaign.policy)
        report = await services.store.dry_run_load(campaign, identity, _deduplicated(blocks), rejected)
    if report.total == 0:
        raise SourceError(_EMPTY.format(name=path.name))
    return report


async def _deduplicated(blocks: AsyncIterator[Block]) -> AsyncIterator[Deduplicated]:
    deduplicator = Deduplicator()
    async for block in blocks:
        yield deduplicator.split(block.rows)
