"""dispatcher account …"""

import re
from collections.abc import Iterable
from datetime import timedelta
from ipaddress import ip_address
from typing import Annotated
from urllib.parse import urlsplit

import typer

from config.settings import Settings
from dispatcher.bootstrap import PROVIDERS, check_account, check_credentials, public_url, secret_key
from dispatcher.cli.console import as_json, err, out
from dispatcher.cli.session import call, settings
from dispatcher.cli.show import account_document, listing
from dispatcher.domain.account import Account, NewAccount
from dispatcher.domain.audit import AuditActor
from dispatcher.domain.campaign import read_span
from dispatcher.domain.errors import UsageError
from dispatcher.domain.postback_address import postback_secret, postback_url
from dispatcher.ports import Services

MOST_CPS = 10_000
Option = Annotated[
    list[str] | None, typer.Option("--option", help="NAME=VALUE, what only this provider needs; see docs/providers.md.")
]
PerRequest = Annotated[
    int | None, typer.Option(help="Calls in one request; more than 1 makes all of them doubtful at once.")
]
app = typer.Typer(no_args_is_help=True, help="Provider accounts.")


@app.command()
def add(
    name: Annotated[str, typer.Argument(help="Lower-case letters, digits and hyphens.")],
    provider: Annotated[str, typer.Option(help="One of: " + ", ".join(PROVIDERS))],
    credentials: Annotated[str, typer.Option(help="env:NAME or file:PATH, holding user:password or a token.")],
    cps: Annotated[float, typer.Option(help="Calls a second that the provider allows.")],
    base_url: Annotated[str | None, typer.Option(help="Default: the provider's own address.")] = None,
    headroom: Annotated[float, typer.Option(help="Share of the limit that is used.")] = 0.98,
    in_flight: Annotated[int, typer.Option(help="Calls without a result at the same time.")] = 500,
    in_flight_ttl: Annotated[str, typer.Option(help="How long one call counts as in flight.")] = "2m",
    shifts: Annotated[int, typer.Option(help="Shifts that dial for it at once.")] = 2,
    calls_per_request: PerRequest = 1,
    option: Option = None,
) -> None:
    """Add an account."""
    options = _options(option)
    per_request = 1 if calls_per_request is None else calls_per_request
    default_url = check_account(provider, options, per_request)
    named = re.fullmatch(r"[a-z0-9][a-z0-9-]{0,62}", name)
    _check(f"'{name[:70]}'", named, "cannot name an account: use up to 63 lower-case letters, digits and hyphens")
    _check_limits(cps, headroom, in_flight, shifts, base_url)
    check_credentials(provider, credentials)
    _warn_of_open_wire([base_url or default_url, *options.values()])
    new = NewAccount(
        name=name,
        provider=provider,
        base_url=base_url or default_url,
        credentials=credentials,
        cps=cps,
        headroom=headroom,
        in_flight=in_flight,
        in_flight_ttl=_span(in_flight_ttl),
        shifts=shifts,
        calls_per_request=per_request,
        options=options,
    )
    account = call(lambda services: services.store.add_account(new))
    out.print(
        f"account {account.id} '{account.name}' added; its postback address: {postback_address(settings(), account)}"
    )


@app.command()
def edit(
    name: str,
    credentials: Annotated[str | None, typer.Option(help="env:NAME or file:PATH, holding what it needs.")] = None,
    cps: Annotated[float | None, typer.Option(help="Calls a second that the provider allows.")] = None,
    base_url: Annotated[str | None, typer.Option(help="The provider's address.")] = None,
    headroom: Annotated[float | None, typer.Option(help="Share of the limit that is used.")] = None,
    in_flight: Annotated[int | None, typer.Option(help="Calls without a result at the same time.")] = None,
    in_flight_ttl: Annotated[str | None, typer.Option(help="How long one call counts as in flight.")] = None,
    shifts: Annotated[int | None, typer.Option(help="Shifts that dial for it at once.")] = None,
    calls_per_request: PerRequest = None,
    option: Option = None,
) -> None:
    """Change an account; its campaigns go on with the new values at once."""
    _check_limits(cps, headroom, in_flight, shifts, base_url)
    options = _options(option)
    said = {
        "credentials": credentials,
        "cps": cps,
        "base_url": base_url,
        "headroom": headroom,
        "in_flight": in_flight,
        "in_flight_ttl": _span(in_flight_ttl) if in_flight_ttl is not None else None,
        "shifts": shifts,
        "calls_per_request": calls_per_request,
        "options": options or None,
    }
    changes = {option: value for option, value in said.items() if value is not None}
    if not changes:
        raise UsageError("say what to change; see: dispatcher account edit --help")

    async def verb(services: Services) -> Account:
        account = await services.store.account_named(name)
        check_account(
            account.provider,
            {**account.options, **options},
            account.calls_per_request if calls_per_request is None else calls_per_request,
        )
        if credentials is not None:
            check_credentials(account.provider, credentials)
        return await services.store.edit_account(account.id, changes)

    call(verb)
    _warn_of_open_wire([base_url or "", *options.values()])
    out.print(f"account '{name}' changed: {', '.join(sorted(changes))}")


@app.command()
def stop(name: str) -> None:
    """Dial nobody through this account, for all campaigns, until you resume it."""

    async def verb(services: Services) -> bool:
        return await services.store.hold_account((await services.store.account_named(name)).id)

    out.print(f"account '{name}' is STOPPED" if call(verb) else f"account '{name}' was STOPPED already")


@app.command()
def resume(name: str) -> None:
    """Dial again through this account, whoever stopped it."""

    async def verb(services: Services) -> bool:
        account = await services.store.account_named(name)
        return await services.store.reopen_account(account.id, actor=AuditActor.OPERATOR)

    out.print(f"account '{name}' is OPEN" if call(verb) else f"account '{name}' was OPEN already")


@app.command("list")
def list_accounts(json: Annotated[bool, typer.Option("--json")] = False) -> None:
    """Show all accounts and how they are doing."""
    accounts = call(lambda services: services.store.accounts())
    if json:
        as_json([account_document(a) for a in accounts])
        return
    columns = ["id", "name", "provider", "state", "reason", "cps", "rate now", "in flight"]
    rows = [[a.id, a.name, a.provider, a.state, a.reason, a.cps, f"{a.rate:.2f}", a.in_flight] for a in accounts]
    out.print(listing(columns, rows) if accounts else "no accounts; add one with: dispatcher account add")


@app.command()
def show(name: str) -> None:
    """Show one account: its limits, its options and where the provider posts to."""
    account = call(lambda services: services.store.account_named(name))
    document = {**account_document(account), "postback_address": postback_address(settings(), account)}
    out.print(listing(["what", "value"], [[what, str(value)] for what, value in document.items()]))


@app.command()
def subscribe(name: str) -> None:
    """Ask the provider to post results to this installation."""

    chosen = settings()

    async def verb(services: Services) -> Account:
        account = await services.store.account_named(name)
        await subscribe_account(services, chosen, account)
        return account

    account = call(verb)
    out.print(f"account {account.id} '{account.name}' posts to {postback_address(chosen, account)}")


@app.command()
def unsubscribe(name: str) -> None:
    """Ask the provider to post nothing more to this installation."""
    chosen = settings()

    async def verb(services: Services) -> int:
        account = await services.store.account_named(name)
        return await services.providers.of(account).unsubscribe(postback_address(chosen, account))

    out.print(f"{call(verb)} subscriptions of account '{name}' taken back")


def postback_address(chosen: Settings, account: Account) -> str:
    """Where the provider posts an account's results."""
    return postback_url(public_url(chosen), secret_key(chosen), account)


async def subscribe_account(services: Services, chosen: Settings, account: Account) -> None:
    """Ask the provider to post an account's results to us."""
    secret = postback_secret(secret_key(chosen), account.name)
    await services.providers.of(account).subscribe(postback_address(chosen, account), secret)


def _check_limits(
    cps: float | None, headroom: float | None, in_flight: int | None, shifts: int | None, base_url: str | None
) -> None:
    _check("--cps", cps is None or 0 < cps <= MOST_CPS, f"must be more than 0 and at most {MOST_CPS}")
    _check("--headroom", headroom is None or 0 < headroom <= 1, "must be more than 0 and at most 1")
    _check("--in-flight", in_flight is None or in_flight >= 1, "must be at least 1")
    _check("--shifts", shifts is None or 1 <= shifts <= 64, "must be between 1 and 64")
    address = base_url is None or re.fullmatch(r"https?://[^/\s@?#]+(/[^\s?#]*)?", base_url)
    _check("--base-url", address, "must be an address like https://api.example.com/v2, without secrets or a query")


def _warn_of_open_wire(addresses: Iterable[str]) -> None:
    """Only a warning, because a provider in a private network may have no TLS."""
    for address in addresses:
        if address.lower().startswith("http://") and not _is_this_machine(urlsplit(address).hostname or ""):
            err.print(
                f"warning: {address} is plain http: the account's credentials and all numbers can be read on the way; "
                "use https"
            )


def _is_this_machine(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _check(what: str, holds: object, said: str) -> None:
    if not holds:
        raise UsageError(f"{what} {said}")


def _options(given: list[str] | None) -> dict[str, str]:
    pairs = [item.partition("=") for item in given or []]
    if bad := next((name for name, equals, _ in pairs if not equals or not name), None):
        raise UsageError(f"write an option as NAME=VALUE, not '{bad[:40]}'")
    if len({name for name, _, _ in pairs}) < len(pairs):
        raise UsageError("an option is said twice")
    return {name.strip(): value.strip() for name, _, value in pairs}


def _span(text: str) -> timedelta:
    try:
        span = read_span(text)
    except ValueError as error:
        raise UsageError(str(error)) from None
    _check("--in-flight-ttl", span > timedelta(0), "must be longer than 0")
    return span
