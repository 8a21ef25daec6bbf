"""dispatcher campaign …"""

import asyncio
import csv
import tomllib
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated

import typer
from rich.live import Live

from dispatcher.cli.session import call
from dispatcher.cli.show import (
    as_json,
    campaign_document,
    err,
    listing,
    load_lines,
    out,
    status_document,
    status_table,
)
from dispatcher.domain.campaign import Campaign, CampaignState, Policy, read_policy
from dispatcher.domain.errors import CampaignFileError, UsageError
from dispatcher.domain.loading import LoadReport, LoadTicket
from dispatcher.flow import control
from dispatcher.flow.load import load as load_records
from dispatcher.ports import Services
from dispatcher.sources import content_digest, open_csv

app = typer.Typer(no_args_is_help=True, help="Campaigns: create, load, start, watch.")
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def read_campaign_file(path: Path) -> Policy:
    """Raises CampaignFileError."""
    try:
        return read_policy(tomllib.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise CampaignFileError(f"{path} cannot be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise CampaignFileError(f"{path} is no TOML file: {error}") from None


@app.command()
def create(
    file: Path,
    request_id: Annotated[str | None, typer.Option(help="The same id again gives the same campaign.")] = None,
    json: Json = False,
) -> None:
    """Create a campaign from a campaign file (see config/campaigns/example.toml)."""
    policy = read_campaign_file(file)
    campaign = call(lambda services: control.create(policy, services, request_id))
    _shown(campaign, json)


@app.command()
def load(
    campaign_id: Annotated[int, typer.Argument(metavar="ID")],
    file: Path,
    rejects: Annotated[Path | None, typer.Option(help="Where to write the records that are not dialled.")] = None,
    json: Json = False,
) -> None:
    """Load a CSV file of destinations; the same file again changes nothing."""
    report, target = call(lambda services: load_file(services, campaign_id, file, rejects))
    if json:
        as_json({"load": report.load_id, "was_done": report.was_done, "rows": report.rows, "rejects": str(target)})
        return
    out.print(load_lines(report))
    out.print(f"records that are not dialled: {target}", soft_wrap=True)


async def load_file(services: Services, campaign_id: int, file: Path, rejects: Path | None) -> tuple[LoadReport, Path]:
    """Load one file and write its reject file."""
    campaign = await services.store.campaign(campaign_id)
    digest = content_digest(file)
    target = _reject_file(file, campaign_id, rejects)
    with open_csv(file) as source:
        ticket, report = await load_records(
            campaign,
            name=source.name,
            digest=digest,
            columns=source.columns,
            records=source.records,
            services=services,
        )
    await _write_rejects(services, ticket, target)
    return report, target


def _reject_file(file: Path, campaign_id: int, rejects: Path | None) -> Path:
    target = rejects or file.with_name(f"{file.stem}.{campaign_id}.rejects.csv")
    if target.resolve() == file.resolve():
        raise UsageError(f"--rejects {target} is the file that is loaded; choose another")
    return target


async def _write_rejects(services: Services, ticket: LoadTicket, target: Path) -> None:
    try:
        with target.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["line", "raw", "e164", "state", "reason"])
            async for reject in services.store.rejects(ticket):
                writer.writerow([reject.line, _safe(reject.raw), reject.e164 or "", reject.state, reject.reason])
    except OSError as error:
        err.print(f"the load is done, but {target} could not be written: {error.strerror}; choose --rejects PATH")
        raise typer.Exit(1) from None


def _safe(cell: str) -> str:
    """A cell that no spreadsheet runs as a formula (OWASP: CSV injection)."""
    return f"'{cell}" if cell.lstrip().startswith(("=", "+", "-", "@", "\t", "\r")) else cell


@app.command()
def start(campaign_id: Annotated[int, typer.Argument(metavar="ID")], json: Json = False) -> None:
    """Begin to dial."""
    _control(campaign_id, control.start, json)


@app.command()
def pause(campaign_id: Annotated[int, typer.Argument(metavar="ID")], json: Json = False) -> None:
    """Stop dialling; when this returns, no new call is permitted."""
    _control(campaign_id, control.pause, json)


@app.command()
def resume(campaign_id: Annotated[int, typer.Argument(metavar="ID")], json: Json = False) -> None:
    """Dial again after a pause."""
    _control(campaign_id, control.resume, json)


@app.command()
def abort(campaign_id: Annotated[int, typer.Argument(metavar="ID")], json: Json = False) -> None:
    """End for good: waiting rows are not dialled any more, calls that are out are awaited."""
    _control(campaign_id, control.abort, json)


def _control(campaign_id: int, verb: Callable[[int, Services], Awaitable[Campaign]], json: bool) -> None:
    _shown(call(lambda services: verb(campaign_id, services)), json)


def _shown(campaign: Campaign, json: bool) -> None:
    if json:
        as_json(campaign_document(campaign))
    else:
        out.print(f"campaign {campaign.id} '{campaign.policy.name}' is {campaign.state}")


@app.command()
def status(
    campaign_id: Annotated[int, typer.Argument(metavar="ID")],
    watch: Annotated[bool, typer.Option("--watch", help="Until the campaign is over.")] = False,
    json: Json = False,
) -> None:
    """Show progress."""
    if watch and json:
        raise UsageError("choose --watch or --json; call --json as often as you like")

    async def once(services: Services) -> None:
        found = await services.store.status(await services.store.campaign(campaign_id))
        if json:
            as_json(status_document(found))
        else:
            out.print(status_table(found))

    async def until_over(services: Services) -> None:
        with Live(console=out, auto_refresh=False) as live:
            while True:
                found = await services.store.status(await services.store.campaign(campaign_id))
                live.update(status_table(found), refresh=True)
                if found.campaign.state in (CampaignState.DONE, CampaignState.ABORTED):
                    return
                await asyncio.sleep(1)

    call(until_over if watch else once)


@app.command("list")
def list_campaigns(json: Json = False) -> None:
    """Show all campaigns."""
    campaigns = call(lambda services: services.store.campaigns())
    if json:
        as_json([campaign_document(c) for c in campaigns])
        return
    rows = [[c.id, c.policy.name, c.state, c.reason, c.policy.account] for c in campaigns]
    out.print(listing(["id", "name", "state", "by", "account"], rows) if rows else "no campaigns")
