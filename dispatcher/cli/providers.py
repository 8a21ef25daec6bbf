"""dispatcher provider …"""

from datetime import UTC, datetime
from json import dumps
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

import typer

from dispatcher.bootstrap import PROVIDERS, read_body
from dispatcher.cli.accounts import postback_address
from dispatcher.cli.console import as_json, err, out
from dispatcher.cli.local import reach
from dispatcher.cli.session import call, settings
from dispatcher.cli.show import listing
from dispatcher.domain.account import Account
from dispatcher.domain.campaign import read_span
from dispatcher.domain.capability import AccountVerification, Capabilities
from dispatcher.domain.errors import PayloadError, UsageError
from dispatcher.domain.phone import is_e164
from dispatcher.domain.provider_body import Body, BodyKind, ParsedBody, ProviderNotice
from dispatcher.domain.results import CallReport, Disposition
from dispatcher.domain.states import RetryOwner
from dispatcher.flow.verify_account import verify_account
from dispatcher.ports import Services

MOST_BYTES = 1 << 20
app = typer.Typer(no_args_is_help=True, help="Providers: what they say, and what they can do.")
_OWNERS = {Disposition.RETRYABLE: RetryOwner.DISPATCHER, Disposition.PROVIDER_RETRY: RetryOwner.PROVIDER}


@app.command()
def read(
    provider: Annotated[str, typer.Argument(help="One of: " + ", ".join(PROVIDERS))],
    file: Annotated[Path, typer.Argument(help="A body that a provider sent, byte for byte.")],
    kind: Annotated[BodyKind, typer.Option(help="Where it came from.")] = BodyKind.POSTBACK,
    http_status: Annotated[int, typer.Option(min=100, max=599, help="Of the answer that it came with.")] = 200,
    content_type: Annotated[str, typer.Option(help="Default: by its first character.")] = "",
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Say what the dispatcher makes of a body; exits 1 when it cannot be read. Nothing is stored or changed."""
    body = Body(kind=kind, data=_bytes(file), content_type=content_type, status=http_status)
    parsed, error = ParsedBody(), None
    try:
        parsed = read_body(provider, body)
    except PayloadError as failed:
        error = str(failed)
    if json:
        as_json(document(parsed, error))
    elif error:
        out.print(f"cannot be read: {error}", markup=False)
    else:
        _show(parsed)
    if error:
        raise typer.Exit(1)


@app.command()
def probe(
    account: Annotated[str, typer.Argument(help="Name of an account.")],
    live: Annotated[
        str | None, typer.Option(help="Your own number, E.164: it is rung once, or twice where nothing is recognised.")
    ] = None,
    window: Annotated[str, typer.Option(help="How long the second request waits, to be recognised or not.")] = "1m",
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Check an account: credentials, clock, where it posts to, and what it recognises when it comes again.

    Only a simulator is dialled unless --live names a number of your own. Writes what was found into the data folder;
    exits 1 when the account cannot be used.
    """
    chosen = settings()
    number = _own_number(live)

    async def verb(services: Services) -> dict[str, Any]:
        known = await services.store.account_named(account)
        wait = read_span(window)
        found = await verify_account(known, number if _is_played(known) or live else None, wait, services)
        address = postback_address(chosen, known)
        return report(known, services.providers.capabilities(known), found, address, reach(_health(address), 5))

    try:
        told = call(verb)
    except ValueError as error:
        raise UsageError(f"--window: {error}") from None
    file = chosen.data_folder / "capabilities" / f"{account}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(dumps(told, indent=2) + "\n")
    if json:
        as_json(told)
    else:
        out.print(listing(["what", "found"], [[name, str(value)] for name, value in told.items()]))
        out.print(f"written to {file}", soft_wrap=True)
    if objection := told["objection"]:
        err.print(
            f"the provider refuses the account ({objection}): check its credentials, base URL and options", markup=False
        )
        raise typer.Exit(1)


def _own_number(live: str | None) -> str:
    if live is not None and not is_e164(live):
        raise UsageError("--live must be a number of your own in E.164, for example +12025550199")
    return live or "+12025550100"


def _is_played(account: Account) -> bool:
    """Is it a simulator? Nobody is rung on this machine."""
    return urlsplit(account.base_url).hostname in ("127.0.0.1", "::1", "localhost")


def _health(address: str) -> str:
    return address.partition("/hooks/")[0] + "/healthz"


def report(
    account: Account, declared: Capabilities, found: AccountVerification, address: str, unreachable: str | None
) -> dict[str, Any]:
    """What is known of an account, as the capability file holds it."""
    host = urlsplit(address).hostname
    outside = "" if _is_played(account) or host not in ("127.0.0.1", "localhost") else "; a provider cannot reach it"
    window = found.dedupe_window
    return {
        "account": account.name,
        "provider": account.provider,
        "base_url": account.base_url,
        "probed_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "works": found.objection is None,
        "objection": found.objection,
        "clock_off_s": round(found.clock_off_s, 1) if found.clock_off_s is not None else None,
        "postback_address": (unreachable or "answers") + outside,
        "dedupe_declared": str(declared.dedupe),
        "dedupe_proved": bool(window),
        "dedupe_window_s": window.total_seconds() if window else None,
        "dialled": found.dialled,
        "lookup": str(declared.lookup),
        "own_retries": declared.own_retries,
        "callback_auth": str(declared.callback_auth),
        "most_calls_per_request": declared.most_calls,
        "calls_per_request": account.calls_per_request,
        "cancel": declared.cancel,
        "channels": ", ".join(sorted(declared.channels)),
    }


def _bytes(file: Path) -> bytes:
    try:
        if not file.is_file():
            raise UsageError(f"{file} is no file; name a file that holds one body")
        with file.open("rb") as opened:
            return opened.read(MOST_BYTES)
    except OSError as error:
        raise UsageError(f"{file} cannot be read: {error.strerror}") from None


def document(parsed: ParsedBody, error: str | None) -> dict[str, Any]:
    """What a body says, as JSON."""
    return {
        "ok": error is None,
        "error": error,
        "outcomes": [_outcome(s) for s in parsed.reports],
        "events": [_notice(e) for e in parsed.notices],
    }


def _outcome(seen: CallReport) -> dict[str, Any]:
    outcome = seen.outcome
    return {
        "provider_call_id": outcome.provider_call_id,
        "correlation": seen.key,
        "to": seen.to,
        "channel": seen.channel,
        "inbound": seen.inbound,
        "state": outcome.state,
        "result": outcome.result,
        "disposition": outcome.disposition,
        "retry_owner": _OWNERS.get(outcome.disposition),
        "answered_at": _instant(outcome.answered_at),
        "finished_at": _instant(outcome.finished_at),
        "duration_s": outcome.duration_s,
        "cost": outcome.cost,
        "raw_state": outcome.raw_state,
        "raw_result": outcome.raw_result,
        "records": seen.records,
    }


def _instant(at: datetime | None) -> str | None:
    return at.astimezone(UTC).isoformat().replace("+00:00", "Z") if at else None


def _notice(notice: ProviderNotice) -> dict[str, Any]:
    outcome = notice.outcome
    meant = {"disposition": outcome.disposition, "reason": outcome.why} if outcome else {"disposition": None}
    return {"type": notice.type, **meant, **notice.detail}


def _show(parsed: ParsedBody) -> None:
    columns = ["call", "our key", "to", "state", "result", "disposition", "their words"]
    rows = [
        [
            s.outcome.provider_call_id or "",
            s.key or "",
            s.to or "",
            s.outcome.state or "",
            s.outcome.result or "",
            f"{s.outcome.disposition}{' (inbound)' if s.inbound else ''}",
            " ".join(w for w in (s.outcome.raw_state, s.outcome.raw_result) if w),
        ]
        for s in parsed.reports
    ]
    if rows:
        out.print(listing(columns, rows))
    for notice in parsed.notices:
        told = ", ".join(f"{name} {value}" for name, value in _notice(notice).items() if name != "type" and value)
        out.print(f"{notice.type}: {told}", markup=False)
    if not rows and not parsed.notices:
        out.print("it says nothing")
