"""Load: records are read, staged in chunks, and classified in one transaction at the end."""

from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import timedelta
from itertools import islice

from dispatcher.domain.campaign import Campaign
from dispatcher.domain.errors import ServerError, SourceError
from dispatcher.domain.loading import LoadReport, LoadTicket, load_identity
from dispatcher.domain.screening import Record, check_columns, screen
from dispatcher.ports import Services

CHUNK = 1000
LEASE = timedelta(seconds=60)


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
    check_columns(columns, policy)
    identity = load_identity(digest, policy)
    owner = services.ids.owner()
    ticket = await services.store.begin_load(campaign, identity, name, owner=owner, lease=LEASE)
    if ticket.is_done:
        return ticket, await services.store.load_report(ticket)
    try:
        rows = 0
        while chunk := [screen(record, policy) for record in islice(records, CHUNK)]:
            if services.stopping():
                raise SourceError("the load was stopped before its end; nothing was kept, load the file again")
            await services.store.stage(ticket, chunk, lease=LEASE)
            rows += len(chunk)
            progress(rows)
        if rows == 0:
            raise SourceError(f"{name} holds no record below its header; nothing was loaded")
        report = await services.store.finish_load(ticket)
    except BaseException as error:
        with suppress(ServerError):  # then its lease ends, and the tick gives it up
            await services.store.fail_load(ticket, str(error) or type(error).__name__)
        raise
    await services.store.dnc_rescreen(ticket.opened_at)
    return ticket, report
