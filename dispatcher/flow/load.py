"""Load: records are read, staged in chunks, and classified in one transaction at the end."""

from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import timedelta
from itertools import islice
from pathlib import Path

from dispatcher.domain.campaign import Campaign, Policy
from dispatcher.domain.errors import ServerError, SourceError, UsageError
from dispatcher.domain.loading import Format, LoadReport, LoadTicket, Reject, Source, load_identity
from dispatcher.domain.screening import ColumnMap, Record, Screened, map_columns, screen
from dispatcher.flow.lists import screen_campaign
from dispatcher.ports import Services

CHUNK = 1000
LEASE = timedelta(seconds=60)
_EMPTY = "{name} holds no record below its header; nothing was loaded"


async def load(
    campaign: Campaign,
    *,
    name: str,
    digest: str,
    columns: list[str],
    records: Iterator[Record],
    services: Services,
    progress: Callable[[int], None] = lambda rows: None,
) -> tuple[LoadTicket, LoadReport]:
    """Load one source into a campaign; all of its records or none. The same source again changes nothing.

    Raises SourceError (a file that cannot be used), NotAllowed (a finished campaign, another loader), ServerError.
    """
    policy = campaign.policy
    places = map_columns(columns, policy)
    identity = load_identity(digest, policy)
    owner = services.ids.owner()
    ticket = await services.store.begin_load(campaign, identity, name, owner=owner, lease=LEASE)
    if ticket.is_done:
        return ticket, await services.store.load_report(ticket)
    try:
        rows = 0
        for chunk in _chunks(records, policy, places):
            if services.stopping():
                raise SourceError("the load was stopped before its end; nothing was kept, load the file again")
            await services.store.stage(ticket, chunk, lease=LEASE)
            rows += len(chunk)
            progress(rows)
        if rows == 0:
            raise SourceError(_EMPTY.format(name=name))
        report = await services.store.finish_load(ticket)
    except BaseException as error:
        with suppress(ServerError):  # then its lease ends, and the tick gives it up
            await services.store.fail_load(ticket, str(error) or type(error).__name__)
        raise
    await services.store.dnc_rescreen(ticket.opened_at)
    if await services.store.dnc_grew_since(ticket.opened_at):
        await screen_campaign(await services.store.campaign(campaign.id), services)
    return ticket, report


async def load_file(
    campaign_id: int,
    path: Path,
    services: Services,
    *,
    format_: Format | None = None,
    name: str | None = None,
    watch: Callable[[Source], Callable[[int], None]] = lambda source: lambda rows: None,
) -> tuple[LoadTicket, LoadReport]:
    """Load a file, read twice: once to know it, once for its records. Raises as `load` does, and NotFound."""
    campaign = await services.store.campaign(campaign_id)
    digest = services.sources.digest(path)
    with services.sources.open(path, format_) as source:
        return await load(
            campaign,
            name=name or source.name,
            digest=digest,
            columns=source.columns,
            records=source.records,
            services=services,
            progress=watch(source),
        )


async def load_spooled(campaign_id: int, name: str, find: Callable[[], Path], services: Services) -> LoadReport:
    """A load that nobody waits for: if it cannot be done, the campaign's status says why. Raises as `load` does."""
    try:
        return (await load_file(campaign_id, find(), services, name=name))[1]
    except UsageError as error:
        await services.store.note_failed_load(campaign_id, name, str(error))
        raise


async def rehearse(
    campaign: Campaign,
    *,
    name: str,
    digest: str,
    columns: list[str],
    records: Iterator[Record],
    services: Services,
    rejected: Callable[[Reject], None],
) -> LoadReport:
    """What a load would make of these records: nothing is kept. Raises as `load` does."""
    places = map_columns(columns, campaign.policy)
    identity = load_identity(digest, campaign.policy)
    report = await services.store.rehearse_load(campaign, identity, _chunks(records, campaign.policy, places), rejected)
    if report.total == 0:
        raise SourceError(_EMPTY.format(name=name))
    return report


def _chunks(records: Iterator[Record], policy: Policy, places: ColumnMap) -> Iterator[list[Screened]]:
    while chunk := [screen(record, policy, places) for record in islice(records, CHUNK)]:
        yield chunk
