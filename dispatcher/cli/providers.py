"""dispatcher provider …"""

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from dispatcher.bootstrap import PROVIDERS, read_body
from dispatcher.cli.show import as_json, listing, out
from dispatcher.domain.errors import PayloadError, UsageError
from dispatcher.domain.reading import Body, BodyKind, Event, Reading
from dispatcher.domain.results import Disposition, Sighting
from dispatcher.domain.states import RetryOwner

MOST_BYTES = 1 << 20
app = typer.Typer(no_args_is_help=True, help="Providers: what they say, and what they can do.")
_OWNERS = {Disposition.RETRYABLE: RetryOwner.US, Disposition.PROVIDER_RETRY: RetryOwner.PROVIDER}


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
    reading, error = Reading(), None
    try:
        reading = read_body(provider, body)
    except PayloadError as failed:
        error = str(failed)
    if json:
        as_json(document(reading, error))
    elif error:
        out.print(f"cannot be read: {error}", markup=False)
    else:
        _show(reading)
    if error:
        raise typer.Exit(1)


def _bytes(file: Path) -> bytes:
    try:
        if not file.is_file():
            raise UsageError(f"{file} is no file; name a file that holds one body")
        with file.open("rb") as opened:
            return opened.read(MOST_BYTES)
    except OSError as error:
        raise UsageError(f"{file} cannot be read: {error.strerror}") from None


def document(reading: Reading, error: str | None) -> dict[str, Any]:
    """What a body says, as JSON."""
    return {
        "ok": error is None,
        "error": error,
        "outcomes": [_outcome(s) for s in reading.sightings],
        "events": [_event(e) for e in reading.events],
    }


def _outcome(seen: Sighting) -> dict[str, Any]:
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


def _event(event: Event) -> dict[str, Any]:
    outcome = event.outcome
    meant = {"disposition": outcome.disposition, "reason": outcome.detail} if outcome else {"disposition": None}
    return {"type": event.type, **meant, **event.detail}


def _show(reading: Reading) -> None:
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
        for s in reading.sightings
    ]
    if rows:
        out.print(listing(columns, rows))
    for event in reading.events:
        told = ", ".join(f"{name} {value}" for name, value in _event(event).items() if name != "type" and value)
        out.print(f"{event.type}: {told}", markup=False)
    if not rows and not reading.events:
        out.print("it says nothing")
