"""What goes when it is no longer needed: rows of campaigns that are over, bodies of old postbacks."""

from datetime import timedelta

from dispatcher.domain.audit import AuditActor
from dispatcher.domain.campaign import Campaign, CampaignState
from dispatcher.domain.errors import NotAllowed, ServerError
from dispatcher.store.database import Database

_AT_ONCE = 5000
_BODIES_AT_ONCE = 500
"""Each second, which is more than come in."""


class Purging:
    """The purging half of the Store port."""

    db: Database

    async def purge_campaign(self, campaign: Campaign, *, actor: AuditActor) -> None:
        """Delete the destinations and attempts of a campaign that is over; again after an interruption.

        Raises NotAllowed when it is not over, ServerError when something still reads its partitions.
        """
        if not campaign.purged_at:
            await self._mark(campaign, actor)
        if campaign.part == 0:
            while (await self.db.fetch("purging.forget_rows", campaign_id=campaign.id, n=_AT_ONCE))[0]["n"]:
                pass
        else:
            await self._purge_part(campaign.part)

    async def _mark(self, campaign: Campaign, actor: AuditActor) -> None:
        place = {"campaign_id": campaign.id, "account_id": campaign.account_id, "part": campaign.part}
        if await self.db.fetch("purging.mark", **place, actor=actor):
            return
        if campaign.state in (CampaignState.DONE, CampaignState.ABORTED):
            raise NotAllowed(
                f"calls, records or loads of campaign {campaign.id} are still being ended; purge it again in a minute"
            )
        raise NotAllowed(
            f"campaign {campaign.id} is {campaign.state}; only a campaign that is DONE or ABORTED can be purged"
        )

    async def _purge_part(self, part: int) -> None:
        mine = [f"{table}_{part}" for table in ("destination", "attempt")]
        attached = await self.db.fetch("purging.attached", names=mine)
        if any(row["name"] == mine[1] for row in attached):
            last = ""
            while row := await self.db.fetch_one("purging.forget_refs", part=part, after=last, n=_AT_ONCE):
                if row["last"] is None:
                    break
                last = row["last"]
        for row in attached:
            # neither waits with a lock on the parent that permits would queue behind
            how = "FINALIZE" if row["pending"] else "CONCURRENTLY"
            try:
                await self.db.command(f"ALTER TABLE {row['parent']} DETACH PARTITION {row['name']} {how}")
            except ServerError as error:
                raise ServerError(
                    "something still reads destinations, for example an export or a reject file; nothing is lost. "
                    "Purge the campaign again when it is over"
                ) from error
        await self.db.fetch("purging.drop_detached", part=part)

    async def empty_postbacks(self, age: timedelta) -> int:
        """Empty some bodies of postbacks that are older; how many."""
        return int((await self.db.fetch("purging.empty_bodies", age=age, n=_BODIES_AT_ONCE))[0]["n"])
