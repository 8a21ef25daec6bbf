"""Lists: numbers are added, imported and removed; who waits is screened again."""

import hashlib
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from itertools import islice

from dispatcher.domain.account import Account
from dispatcher.domain.campaign import Campaign
from dispatcher.domain.dnc import (
    DncAdd,
    DncImport,
    DncListRef,
    DncReport,
    ListedNumbers,
    Scope,
    ScreeningCursor,
    read_listed,
)
from dispatcher.domain.errors import NotFound, ServerError, SourceError, UsageError
from dispatcher.domain.phone import SUPPORTED_REGIONS, NotAPhone
from dispatcher.ports import Services

CHUNK = 100_000
LEASE = timedelta(seconds=60)
_PAGE = 5000


async def add(new: DncAdd, region: str, services: Services) -> DncReport:
    """Put numbers, as a person writes them, on a list. Raises UsageError for one that cannot be read: none is added."""
    check_list_ref(new)
    numbers = tuple(read_numbers(new.numbers, region))
    report = await services.store.dnc_add(replace(new, numbers=numbers))
    if any(number.endswith("*") for number in numbers):
        report = replace(report, moved=report.moved + await screen_waiting(services))
    return report


async def remove(texts: Iterable[str], region: str, ref: DncListRef, services: Services) -> int:
    """End the entries of a list for these numbers; how many there were. Raises UsageError."""
    return await services.store.dnc_remove(read_numbers(texts, region), ref)


async def import_list(
    new: DncImport,
    lines: Iterable[tuple[int, str]],
    region: str,
    services: Services,
    *,
    unreadable: Callable[[int, str], None],
    skip: bool = False,
    may_be_empty: bool = False,
    progress: Callable[[int], None] = lambda numbers: None,
    in_force: Callable[[int], None] = lambda numbers: None,
) -> tuple[int, int] | None:
    """Bring a file of numbers into force as one; gives (numbers, waiting rows that became DNC), None if it was before.

    Lines that cannot be read are told to `unreadable`; unless `skip` is set they refuse the whole file, because a
    list with holes would be believed. `in_force` hears of the numbers before waiting rows are moved. Raises
    SourceError, NotAllowed, ServerError.
    """
    check_list_ref(new)
    check_region(region)
    ticket = await services.store.dnc_begin_import(new, owner=services.ids.owner(), lease=LEASE)
    if ticket.is_active:
        return None
    try:
        listed, bad = ListedNumbers(), 0
        rest = iter(lines)
        while chunk := list(islice(rest, CHUNK)):
            bad += _add(listed, chunk, region, unreadable)
            await services.store.dnc_keep_import(ticket, lease=LEASE)
            progress(len(listed))
        _require_whole(listed, 0 if skip else bad, may_be_empty=may_be_empty)
        await services.store.dnc_stage(ticket, listed, lease=LEASE)
        active = await services.store.dnc_activate(ticket)
    except BaseException:
        with suppress(ServerError):  # then its lease ends
            await services.store.dnc_fail_import(ticket)
        raise
    in_force(active)
    return active, await screen_waiting(services)


def _add(
    listed: ListedNumbers, lines: Iterable[tuple[int, str]], region: str, unreadable: Callable[[int, str], None]
) -> int:
    """Read these lines; how many cannot be read."""
    numbers, bad = [], 0
    for line, text in lines:
        number = read_listed(text, region)
        if isinstance(number, NotAPhone):
            bad += 1
            unreadable(line, number.reason)
        else:
            numbers.append(number)
    listed.update(numbers)
    return bad


def _require_whole(listed: ListedNumbers, bad: int, *, may_be_empty: bool) -> None:
    if bad:
        raise SourceError(
            f"{bad} line{'s hold' if bad > 1 else ' holds'} no number that can be read; nothing was imported. Mend "
            f"{'them' if bad > 1 else 'it'}, or import the rest with --skip-unreadable"
        )
    if not listed and not may_be_empty:
        raise SourceError("the file holds no number; nothing was imported")


async def pull(account: Account, services: Services) -> tuple[int, int] | None:
    """Bring the provider's own do-not-call list of an account into force for that account; as `import_list`.

    It replaces what was pulled before. Raises NotAllowed, SourceError, ServerError, UsageError.
    """
    numbers = sorted(await services.providers.of(account).dnc_numbers())
    new = DncImport(
        list=f"provider-{account.name}",
        source=f"account:{account.id}",
        scope=Scope.ACCOUNT,
        scope_id=account.id,
        identity=hashlib.sha256("\n".join(numbers).encode()).hexdigest(),
        replaces=True,
    )
    lines = enumerate(numbers, 1)
    return await import_list(new, lines, "US", services, unreadable=_passed_over, skip=True, may_be_empty=True)


def _passed_over(line: int, why: str) -> None:
    """What they list may be no number that anybody could dial."""


async def push(account: Account, list_name: str, services: Services) -> tuple[int, int]:
    """Put the numbers of one of our lists on the provider's own: how many, and how many prefixes had to stay here.

    Raises NotAllowed, NotFound, ServerError, UsageError.
    """
    entries = {entry.number async for entry in services.store.dnc_entries(list_name)}
    numbers = sorted(number for number in entries if not number.endswith("*"))
    if not numbers:
        raise NotFound(f"the list '{list_name}' holds no number; see: dispatcher dnc list")
    await services.providers.of(account).dnc_add(numbers)
    return len(numbers), len(entries) - len(numbers)


async def screen_waiting(services: Services) -> int:
    """Move every waiting row that a list names now, in pages; the permit asks the lists meanwhile. How many."""
    moved = 0
    for id_ in await services.store.waiting_campaigns():
        moved += await screen_campaign(await services.store.campaign(id_), services)
    return moved


async def screen_campaign(campaign: Campaign, services: Services) -> int:
    """As `screen_waiting`, for one campaign."""
    moved = 0
    last: ScreeningCursor | None = None
    while True:
        last, n = await services.store.dnc_screen_waiting(campaign, last, _PAGE)
        moved += n
        if last is None:
            return moved


def check_list_ref(ref: DncListRef) -> None:
    """Raises UsageError for a list without a name."""
    if not ref.list.strip():
        raise UsageError("a list needs a name")


def check_region(region: str) -> None:
    """Raises UsageError."""
    if region not in SUPPORTED_REGIONS:
        raise UsageError(f"'{region}' is no region; write two capital letters like 'US'")


def read_numbers(texts: Iterable[str], region: str) -> list[str]:
    """Numbers and prefixes as lists hold them. Raises UsageError."""
    check_region(region)
    numbers = []
    for ref, text in enumerate(texts, 1):
        number = read_listed(text, region)
        if isinstance(number, NotAPhone):
            raise UsageError(
                f"number {ref} cannot be read ({number.reason}); write it like +12025550142, or a prefix like +1900*"
            )
        numbers.append(number)
    return numbers
