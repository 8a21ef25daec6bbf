"""What goes when it is no longer needed: rows of campaigns that are over, bodies of old postbacks."""

from datetime import timedelta

from dispatcher.domain.campaign import Campaign
from dispatcher.domain.errors import NotAllowed
from dispatcher.store.database import Database
from dispatcher.store.queries import statement

_AT_ONCE = 5000
_BODIES_AT_ONCE = 500
"""Each second, which is more than come in."""


class Purging:
    """The purging half of the Store port."""

    db: Database

    async def purge_campaign(self, campaign: Campaign, *, actor: str) -> None:
        """Delete the destinations and attempts of a campaign that is over; again after an interruption.

        Raises NotAllowed when it is not over, ServerError when something still reads its partitions.
        """
        place = {"campaign_id": campaign.id, "account_id": campaign.account_id}
        marked = await self.db.fetch_one("purging.mark", **place, actor=actor)
        if marked is None:
            raise NotAllowed(
                f"campaign {campaign.id} is {campaign.state}, or calls, records or loads of it are still open; only a "
                "campaign that is DONE or ABORTED and has nothing open can be purged"
            )
        if marked["part"] == 0:
            while (await self.db.fetch("purging.forget_rows", campaign_id=campaign.id, n=_AT_ONCE))[0]["n"]:
                pass
        else:
            await self._purge_part(marked["part"])

    async def _purge_part(self, part: int) -> None:
        attached = await self.db.fetch("purging.attached", part=part)
        if any(row["parent"] == "attempt" for row in attached):
            last = ""
            while row := await self.db.fetch_one("purging.forget_refs", part=part, after=last, n=_AT_ONCE):
                if row["last"] is None:
                    break
                last = row["last"]
        for row in attached:
            # neither waits with a lock on the parent that permits would queue behind
            how = "FINALIZE" if row["pending"] else "CONCURRENTLY"
            await self.db.command(f"ALTER TABLE {row['parent']} DETACH PARTITION {row['name']} {how}")
        await self.db.command(statement("purging.drop_detached").replace("{part}", str(part)))

    async def empty_postbacks(self, age: timedelta) -> int:
        """Empty some bodies of postbacks that are older; how many."""
        return int((await self.db.fetch("purging.empty_bodies", age=age, n=_BODIES_AT_ONCE))[0]["n"])
