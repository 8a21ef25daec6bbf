"""dispatcher campaign …"""

import asyncio
import tomllib
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated

import typer
from rich.live import Live

from dispatcher.cli.console import as_json, err, out
from dispatcher.cli.load import load
from dispatcher.cli.session import call
from dispatcher.cli.show import listing, status_table
from dispatcher.domain.campaign import Campaign, CampaignState, Policy, read_policy
from dispatcher.domain.errors import CampaignFileError, UsageError
from dispatcher.domain.report import campaign_document, status_document
from dispatcher.flow import control
from dispatcher.ports import Services

app = typer.Typer(no_args_is_help=True, help="Campaigns: create, load, start, watch.")
app.command()(load)
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


@app.command()
def purge(
    campaign_id: Annotated[int, typer.Argument(metavar="ID")],
    confirm: Annotated[str | None, typer.Option(metavar="NAME", help="The campaign's name.")] = None,
    json: Json = False,
) -> None:
    """Delete what a campaign that is over has loaded and dialled; its counts, loads and audit are kept."""
    campaign = call(lambda services: control.purge(campaign_id, confirm, services))
    if json:
        as_json(campaign_document(campaign))
    else:
        out.print(f"campaign {campaign.id} '{campaign.policy.name}' is purged; its counts and its audit are kept")


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
def list_campaigns(
    state: Annotated[CampaignState | None, typer.Option(help="Only those in this state.")] = None,
    limit: Annotated[
        int | None, typer.Option(min=0, help="The newest so many; 0 shows all. Default: 100, all with --json.")
    ] = None,
    json: Json = False,
) -> None:
    """Show campaigns."""
    limit = (0 if json else 100) if limit is None else limit
    campaigns = call(lambda services: services.store.campaigns(state=state, n=limit + 1 if limit else None))
    if limit and len(campaigns) > limit:
        del campaigns[0]
        err.print(f"the newest {limit} campaigns; there are more, see --limit and --state")
    if json:
        as_json([campaign_document(c) for c in campaigns])
        return
    rows = [[c.id, c.policy.name, c.state, c.reason, c.policy.account] for c in campaigns]
    out.print(listing(["id", "name", "state", "by", "account"], rows) if rows else "no campaigns")
