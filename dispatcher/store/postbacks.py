"""The raw inbox of postbacks."""

import hashlib
from collections.abc import Sequence

from dispatcher.domain.postback import Postback, PostbackMark, RawPostback
from dispatcher.store.database import Database


class Postbacks:
    """The postback half of the Store port."""

    db: Database

    async def save_postbacks(self, raws: Sequence[RawPostback]) -> None:
        """Store a group durably. The same bytes again only count a delivery."""
        once = {(r.account_id, hashlib.sha256(r.body + (r.request or "").encode()).digest()): r for r in raws}
        rows = sorted(once.items(), key=lambda item: item[0])  # one order: two writers never wait for each other
        await self.db.fetch(
            "postbacks.save",
            accounts=[account for (account, _), _ in rows],
            digests=[digest for (_, digest), _ in rows],
            types=[raw.content_type for _, raw in rows],
            bodies=[raw.body for _, raw in rows],
            ips=[raw.source_ip for _, raw in rows],
            requests=[raw.request for _, raw in rows],
        )

    async def postbacks_wait(self) -> bool:
        """Is there anything to take now?"""
        row = await self.db.fetch_one("postbacks.wait")
        return bool(row and row["waits"])

    async def take_postbacks(self, n: int) -> list[Postback]:
        """Up to `n` that wait, the oldest first; whoever dies with them leaves them to the next one."""
        rows = await self.db.fetch("postbacks.take", n=n)
        return [Postback(**row) for row in sorted(rows, key=lambda row: row["id"])]

    async def mark_postbacks(self, marks: Sequence[PostbackMark]) -> None:
        await self.db.fetch(
            "postbacks.mark",
            ids=[m.id for m in marks],
            states=[m.state for m in marks],
            notes=[m.note for m in marks],
            waits=[m.wait_s for m in marks],
        )
