"""Calls that are to ring no more: kept until their provider was asked to stop them, also when they are closed."""

from collections.abc import Sequence

from dispatcher.domain.attempt import Unwanted
from dispatcher.store.database import Database


class Cancelling:
    """The part of the Store port that is about calls nobody wants any more."""

    db: Database

    async def take_cancels(self, account_id: int, n: int) -> list[Unwanted]:
        """Calls that it is time to ask the provider to stop. What has its result needs no asking any more."""
        keys = [row["key"] for row in await self.db.fetch("cancelling.take_cancels", account_id=account_id, n=n)]
        if not keys:
            return []
        rows = await self.db.fetch("cancelling.cancellable", keys=keys)
        if over := [row["key"] for row in rows if row["is_over"]]:
            await self.end_cancels(over, asked=False)
        return [
            Unwanted(row["key"], row["provider_call_id"], row["provider_request_id"])
            for row in rows
            if row["may"] and not row["is_over"]
        ]

    async def end_cancels(self, keys: Sequence[str], *, asked: bool) -> None:
        """Nothing more to ask: the provider took the word, and its news is looked for soon; or it cannot be asked."""
        await self.db.fetch("cancelling.end_cancels", keys=list(keys), asked=asked)
        if asked:
            await self.db.fetch("cancelling.look_soon", keys=list(keys))
