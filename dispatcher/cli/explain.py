"""dispatcher explain: why a number is where it is."""

from typing import Annotated

import typer

from dispatcher.cli.console import as_json, out
from dispatcher.cli.session import call
from dispatcher.domain.errors import NotFound
from dispatcher.domain.history import DestinationHistory, attempt_document, explain_history, row_document
from dispatcher.domain.phone import mask
from dispatcher.flow.lists import read_numbers
from dispatcher.ports import Services

Id = Annotated[int, typer.Argument(metavar="ID")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def explain(campaign_id: Id, number: str, json: Json = False) -> None:
    """Tell the whole story of one number in a campaign: what happened, why, what comes next."""

    async def verb(services: Services) -> DestinationHistory:
        campaign = await services.store.campaign(campaign_id)
        (e164,) = read_numbers([number], campaign.policy.region)
        history = await services.store.history(campaign, e164)
        if history is None:
            raise NotFound(
                f"campaign {campaign_id} has no destination with that number ({mask(e164)}); a number that could not "
                "be read stands in the reject file of its load"
            )
        return history

    history = call(verb)
    lines = explain_history(history)
    if json:
        told = [{"at": at, "what": what} for at, what in lines]
        rows, attempts = [row_document(r) for r in history.rows], [attempt_document(a) for a in history.attempts]
        as_json({"state": history.row.state, "rows": rows, "attempts": attempts, "story": told})
        return
    for at, what in lines:
        out.print(f"{at:%Y-%m-%d %H:%M:%S %Z}  {what}" if at else what, soft_wrap=True, markup=False)
