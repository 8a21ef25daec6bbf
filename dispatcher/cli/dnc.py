"""dispatcher dnc …"""

import csv
import sys
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from dispatcher.cli.console import as_json, err, out
from dispatcher.cli.session import call
from dispatcher.cli.show import entry_document, listing
from dispatcher.domain.campaign import read_span
from dispatcher.domain.dnc import DncAdd, DncImport, DncList, DncListRef, Scope
from dispatcher.domain.errors import NotFound, UsageError
from dispatcher.flow import lists
from dispatcher.ports import Services
from dispatcher.sources import content_digest, open_numbers, regular_file

app = typer.Typer(no_args_is_help=True, help="Do-not-call lists.")
Region = Annotated[str, typer.Option(help="Completes numbers without a country code.")]
List = Annotated[str, typer.Option("--list", help="Which list.")]
Account = Annotated[str | None, typer.Option("--account", help="Holds for this account only.")]
Campaign = Annotated[int | None, typer.Option("--campaign", help="Holds for this campaign only.")]
Channel = Annotated[str, typer.Option(help="voice, text or all.")]
Expires = Annotated[str | None, typer.Option(help="A date like 2027-05-31 (its end, UTC) or a time from now like 30d.")]
Source = Annotated[str, typer.Option(help="Who said so; kept for ever.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command()
def add(
    numbers: Annotated[list[str], typer.Argument(help="Numbers, or prefixes like +1900*.")],
    list_name: List = "default",
    source: Source = "operator",
    region: Region = "US",
    account: Account = None,
    campaign: Campaign = None,
    channel: Channel = "all",
    expires: Expires = None,
    json: Json = False,
) -> None:
    """Never ring these numbers again, from the next permit on."""
    until = _read_expiry(expires)

    async def verb(services: Services) -> Any:
        ref = await _list_ref(services, list_name, account, campaign, channel)
        new = DncAdd(**_values(ref), numbers=tuple(numbers), source=source, expires_at=until)
        return await lists.add(new, region, services)

    report = call(verb)
    if json:
        as_json({"added": report.added, "moved": report.moved, "still_out": report.still_out})
        return
    out.print(f"{report.added} added to '{list_name}', {report.moved} waiting destinations are DNC now")
    for key in report.still_out:
        out.print(f"a call to one of them is out: attempt {key}; its provider is asked to stop it, if it can")


@app.command()
def remove(
    numbers: Annotated[list[str], typer.Argument(help="Numbers, or prefixes like +1900*.")],
    list_name: List = "default",
    region: Region = "US",
    account: Account = None,
    campaign: Campaign = None,
    channel: Channel = "all",
) -> None:
    """Take numbers off a list; what the list held before stays on record."""

    async def verb(services: Services) -> tuple[int, list[str]]:
        ref = await _list_ref(services, list_name, account, campaign, channel)
        removed = await lists.remove(numbers, region, ref, services)
        entries = [e for n in lists.read_numbers(numbers, region) for e in await services.store.dnc_check(n)]
        return removed, sorted({f"'{e.list}' for {_holds_for(e)}, {e.channel}" for e in entries})

    removed, still = call(verb)
    out.print(f"{removed} removed from '{list_name}'")
    if still:
        out.print(f"still on {'; '.join(still)}")
    if not removed:
        raise typer.Exit(1)


@app.command("import")
def import_(
    file: Annotated[Path, typer.Argument(help="One number a line, or CSV; '-' is stdin.")],
    list_name: List = "default",
    source: Annotated[str | None, typer.Option(help="Who said so; default: the file's name.")] = None,
    region: Region = "US",
    account: Account = None,
    campaign: Campaign = None,
    channel: Channel = "all",
    expires: Expires = None,
    replaces: Annotated[bool, typer.Option("--replace", help="End what was imported into this list before.")] = False,
    skip: Annotated[bool, typer.Option("--skip-unreadable", help="Import the rest of a file with bad lines.")] = False,
    json: Json = False,
) -> None:
    """Bring a whole file of numbers into force at once; the same file again changes nothing."""
    until = _read_expiry(expires)
    with regular_file(file) as readable:
        # what the lines mean depends on these as well
        identity = f"{content_digest(readable)} {region}{' skipping' if skip else ''}"

        async def verb(services: Services) -> tuple[int, int] | None:
            ref = await _list_ref(services, list_name, account, campaign, channel)
            new = DncImport(
                **_values(ref), source=source or file.name, identity=identity, expires_at=until, replaces=replaces
            )
            with open_numbers(readable) as lines, err.status("importing …") as shown:
                return await lists.import_list(
                    new,
                    lines,
                    region,
                    services,
                    unreadable=_Unreadable(),
                    skip=skip,
                    progress=lambda n: shown.update(f"importing … {n}"),
                    in_force=lambda n: err.print(f"{n} numbers are in force; moving waiting destinations to DNC …"),
                )

        done = call(verb)
    if json:
        as_json({"was_done": done is None, "numbers": done[0] if done else 0, "moved": done[1] if done else 0})
    elif done is None:
        out.print(f"this file is in force in '{list_name}' already; nothing was changed")
    else:
        out.print(f"{done[0]} numbers in force in '{list_name}', {done[1]} waiting destinations are DNC now")


@app.command()
def pull(account: Annotated[str, typer.Argument(help="Name of an account.")]) -> None:
    """Bring the provider's own do-not-call list into force for its account; it replaces what was pulled before."""

    async def verb(services: Services) -> tuple[int, int] | None:
        return await lists.pull(await services.store.account_named(account), services)

    done = call(verb)
    told = f"{done[0]} numbers in force, {done[1]} waiting destinations are DNC now" if done else "nothing has changed"
    out.print(f"list 'provider-{account}': {told}")


@app.command()
def push(
    account: Annotated[str, typer.Argument(help="Name of an account.")],
    list_name: List = "default",
) -> None:
    """Put the numbers of a list on the provider's own do-not-call list."""

    async def verb(services: Services) -> tuple[int, int]:
        return await lists.push(await services.store.account_named(account), list_name, services)

    pushed, prefixes = call(verb)
    out.print(f"{pushed} numbers of '{list_name}' are on the provider's list of account '{account}'")
    if prefixes:
        out.print(f"{prefixes} prefixes stay here: the provider lists numbers only")


class _Unreadable:
    """Names the first bad lines, never their text."""

    MOST = 10

    def __init__(self) -> None:
        self._n = 0

    def __call__(self, line: int, reason: str) -> None:
        self._n += 1
        if self._n <= self.MOST:
            err.print(f"line {line}: {reason}")
        elif self._n == self.MOST + 1:
            err.print("… and more")


@app.command("list")
def list_lists(
    name: Annotated[str | None, typer.Argument(help="Print the numbers of this list as CSV.")] = None,
    json: Json = False,
) -> None:
    """Show the lists that are in force, or the numbers of one."""
    if name is not None:
        if not call(lambda services: _print_entries(services, name)):
            raise NotFound(f"no list '{name}' is in force; see: dispatcher dnc list")
        return
    found: list[DncList] = call(lambda services: services.store.dnc_lists())
    if json:
        as_json([entry_document(x) for x in found])
        return
    columns = ["list", "holds for", "channel", "numbers", "source", "since"]
    rows = [[x.list, _holds_for(x), x.channel, x.numbers, x.source, _instant(x.effective_at)] for x in found]
    out.print(listing(columns, rows) if rows else "no lists; make one with: dispatcher dnc add NUMBER --list NAME")


async def _print_entries(services: Services, name: str) -> int:
    n = 0
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(["number", "scope", "scope_id", "channel", "source", "effective_at", "expires_at"])
    async for x in services.store.dnc_entries(name):
        until = x.expires_at.isoformat() if x.expires_at else ""
        writer.writerow([x.number, x.scope, x.scope_id or "", x.channel, x.source, x.effective_at.isoformat(), until])
        n += 1
    return n


@app.command()
def check(number: str, region: Region = "US", json: Json = False) -> None:
    """Show the lists that forbid a number; exits 1 when there is one."""
    (e164,) = lists.read_numbers([number], region)
    entries = call(lambda services: services.store.dnc_check(e164))
    if json:
        as_json([entry_document(e) for e in entries])
    elif entries:
        columns = ["list", "entry", "holds for", "channel", "source", "since", "until"]
        rows = [
            [e.list, e.number, _holds_for(e), e.channel, e.source, _instant(e.effective_at), _instant(e.expires_at)]
            for e in entries
        ]
        out.print(listing(columns, rows))
    else:
        out.print("on no list")
    if entries:
        raise typer.Exit(1)


async def _list_ref(
    services: Services, list_name: str, account: str | None, campaign: int | None, channel: str
) -> DncListRef:
    if channel not in ("all", "voice", "text"):
        raise UsageError("--channel must be voice, text or all")
    if account and campaign:
        raise UsageError("choose --account or --campaign; without both the list holds everywhere")
    if account:
        found = await services.store.account_named(account)
        return DncListRef(list=list_name, scope=Scope.ACCOUNT, scope_id=found.id, channel=channel)
    if campaign:
        await services.store.campaign(campaign)
        return DncListRef(list=list_name, scope=Scope.CAMPAIGN, scope_id=campaign, channel=channel)
    return DncListRef(list=list_name, channel=channel)


def _values(ref: DncListRef) -> dict[str, Any]:
    return {name: getattr(ref, name) for name in DncListRef.__slots__}


def _read_expiry(text: str | None) -> datetime | None:
    if text is None:
        return None
    now = datetime.now(UTC)
    until: datetime | None = None
    with suppress(ValueError, OverflowError):
        until = now + read_span(text)
    with suppress(ValueError):
        until = datetime.fromisoformat(f"{text}T23:59:59+00:00")
    if until is None or until <= now:
        raise UsageError("--expires must be a date to come, like 2027-05-31, or a time from now, like 30d")
    return until


def _holds_for(ref: DncListRef) -> str:
    return "everybody" if ref.scope is Scope.GLOBAL else f"{ref.scope} {ref.scope_id}"


def _instant(at: datetime | None) -> str:
    return f"{at:%Y-%m-%d %H:%M:%S %Z}" if at else "-"
