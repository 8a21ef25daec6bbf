"""dispatcher doctor: what an installation needs, looked at one by one, each with its remedy."""

import shutil
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Annotated

import typer

from config.settings import Settings
from dispatcher.bootstrap import check_credentials, configured_urls
from dispatcher.cli.console import as_json, out
from dispatcher.cli.local import reach
from dispatcher.cli.session import call_on, servers, settings
from dispatcher.cli.show import listing
from dispatcher.cli.stack import running_stack
from dispatcher.domain.account import Account, AccountState
from dispatcher.domain.errors import ServerError, UsageError
from dispatcher.ports import Services

_CLOCKS_DIFFER_S = 2.0
_LEAST_FREE_BYTES = 1 << 30
_SIGN_IS_OLD_S = 180
"""Longer than Redis takes to fail over."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at."""

    what: str
    is_well: bool
    said: str
    remedy: str = ""


def doctor(json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """Look at servers, settings, clock and credentials; exits 1 when something is wrong, and says what to do."""
    chosen = settings()
    found = [Finding("settings", True, f"data in {chosen.data_folder}"), _disk(chosen), *_servers(chosen), _web(chosen)]
    found.append(_processes(chosen))
    if json:
        as_json([asdict(f) for f in found])
    else:
        rows = [[f.what, "well" if f.is_well else "WRONG", f.said, f.remedy or None] for f in found]
        out.print(listing(["what", "", "found", "what to do"], rows))
    if not all(f.is_well for f in found):
        raise typer.Exit(1)


def _disk(chosen: Settings) -> Finding:
    folder = next(p for p in (chosen.data_folder, *chosen.data_folder.parents) if p.exists())
    free = shutil.disk_usage(folder).free
    said = f"{free / (1 << 30):.1f} GiB free at {folder}"
    return Finding("disk", free >= _LEAST_FREE_BYTES, said, "" if free >= _LEAST_FREE_BYTES else "make room")


def _servers(chosen: Settings) -> list[Finding]:
    try:
        with servers(chosen) as urls:
            now, accounts = call_on(chosen, urls, _ask)
    except ServerError as error:
        return [Finding("servers", False, str(error), "see the message")]
    answer = Finding("servers", True, "PostgreSQL and Redis answer, the schema is this version's")
    return [answer, _clock(now), *_accounts(accounts)]


async def _ask(services: Services) -> tuple[datetime, list[Account]]:
    accounts = await services.store.accounts()
    return await services.store.now(), accounts


def _clock(now: datetime) -> Finding:
    differ = abs((datetime.now(UTC) - now).total_seconds())
    is_well = differ <= _CLOCKS_DIFFER_S
    remedy = "" if is_well else "set both by NTP: calling windows follow the database's clock"
    return Finding("clock", is_well, f"{differ:.1f} s from the database's", remedy)


def _accounts(accounts: list[Account]) -> Iterator[Finding]:
    if not accounts:
        yield Finding("accounts", True, "none yet", "dispatcher account add --help")
    for account in accounts:
        what = f"account {account.name}"
        try:
            check_credentials(account.provider, account.credentials)
        except UsageError as error:
            yield Finding(what, False, str(error), "set it here and for the workers")
            continue
        is_open = account.state is AccountState.OPEN
        said = f"OPEN, {account.rate:.1f} calls a second" if is_open else f"STOPPED ({account.reason})"
        mend = f"check its credentials and address; it is probed, or: dispatcher account resume {account.name}"
        remedy = "" if is_open else mend
        yield Finding(what, is_open, said, remedy)


def _processes(chosen: Settings) -> Finding:
    """Workers and beat of this machine, by their signs of life."""
    signs = sorted(chosen.alive_folder.glob("*")) if chosen.alive_folder.is_dir() else []
    ages = {sign.name: time.time() - sign.stat().st_mtime for sign in signs}
    if not ages:
        elsewhere = configured_urls(chosen) is not None
        return Finding("workers", elsewhere, "none has run on this machine", "" if elsewhere else "dispatcher up")
    said = ", ".join(f"{name} {age:.0f} s ago" for name, age in ages.items())
    is_well = max(ages.values()) <= _SIGN_IS_OLD_S
    remedy = "" if is_well else "one hangs, is gone, or has no Redis; see its log; delete the file if it was removed"
    return Finding("workers", is_well, f"last signs of life: {said}", remedy)


def _web(chosen: Settings) -> Finding:
    stack = running_stack(chosen)  # it may have been started with another port than is set here
    address = f"{stack.web if stack else chosen.web.local_url}/readyz"
    wrong = reach(address, 5)
    if wrong is None:
        return Finding("web", True, f"{address} is ready")
    remedy = "dispatcher up, or start config/supervisord.conf; postbacks wait meanwhile"
    return Finding("web", False, f"{address}: {wrong}", remedy)
