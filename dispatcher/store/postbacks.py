"""The raw inbox of postbacks."""

import hashlib
from collections.abc import Collection, Sequence

from dispatcher.domain.account import Account
from dispatcher.domain.postback import POSTBACK_LEASE, Postback, PostbackMark, RawPostback
from dispatcher.store.accounts import account_of
from dispatcher.store.database import Database, Step, array


class Postbacks:
    """The postback half of the Store port."""

    db: Database

    async def save_postbacks(self, raws: Sequence[RawPostback]) -> None:
        """Store a group durably. The same bytes again only count a delivery."""
        once = {(r.account_id, hashlib.sha256(r.body + (r.request or "").encode()).digest()): r for r in raws}
        rows = sorted(once.items(), key=lambda item: item[0])  # one order: two writers never wait for each other
        await self.db.fetch(
            "postbacks.save",
            accounts=array([account for (account, _), _ in rows]),
            digests=array([digest for (_, digest), _ in rows]),
            types=array([raw.content_type for _, raw in rows]),
            bodies=array([raw.body for _, raw in rows]),
            ips=array([raw.source_ip for _, raw in rows]),
            requests=array([raw.request for _, raw in rows]),
        )

    async def take_postbacks(self, n: int) -> tuple[dict[int, Account], list[Postback]]:
        """Up to `n` that wait, the oldest first, with their accounts; what is not marked in time comes again."""
        rows, accounts = await self.db.message(
            [("postbacks.take", {"n": n, "again_after": POSTBACK_LEASE}), ("postbacks.accounts", {})]
        )
        names = Postback.__slots__
        found = [Postback(**{name: row[name] for name in names}) for row in sorted(rows, key=lambda row: row["id"])]
        return {row["id"]: account_of(row) for row in accounts}, found


def mark_step(marks: Sequence[PostbackMark], held: Collection[str] = ()) -> list[Step]:
    """The statement that marks postbacks, for the message that settles what they told; none for no marks.

    `held`: keys for which nothing has to be written.
    """
    if not marks:
        return []
    needs = [(m.id, key) for m in marks for key in m.keys if key not in held]
    columns = {
        "ids": array([m.id for m in marks]),
        "states": array([m.state for m in marks]),
        "notes": array([m.note for m in marks]),
        "waits": array([m.wait_s for m in marks]),
        "needing": array([id_ for id_, _ in needs]),
        "keys": array([key for _, key in needs]),
    }
    return [("postbacks.mark", columns)]
