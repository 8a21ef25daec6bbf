"""dispatcher explain: why a number is where it is."""

from typing import Annotated

import typer

from dispatcher.cli.session import call
from dispatcher.cli.show import as_json, out
from dispatcher.domain.errors import NotFound
from dispatcher.domain.phone import mask
from dispatcher.domain.story import Story, attempt_document, row_document, tell
from dispatcher.flow.lists import read_numbers
from dispatcher.ports import Services

Id = Annotated[int, typer.Argument(metavar="ID")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def explain(campaign_id: Id, number: str, json: Json = False) -> None:
    """Tell the whole story of one number in a campaign: what happened, why, what comes next."""

    async def verb(services: Services) -> Story:
        campaign = await services.store.campaign(campaign_id)
        (e164,) = read_numbers([number], campaign.policy.region)
        story = await services.store.story(campaign, e164)
        if story is None:
            raise NotFound(
                f"campaign {campaign_id} has no destination with that number ({mask(e164)}); a number that could not "
                "be read stands in the reject file of its load"
            )
        return story

    story = call(verb)
    lines = tell(story)
    if json:
        told = [{"at": at, "what": what} for at, what in lines]
        rows, attempts = [row_document(r) for r in story.rows], [attempt_document(a) for a in story.attempts]
        as_json({"state": story.row.state, "rows": rows, "attempts": attempts, "story": told})
        return
    for at, what in lines:
        out.print(f"{at:%Y-%m-%d %H:%M:%S %Z}  {what}" if at else what, soft_wrap=True, markup=False)
