"""Calls that are to ring no more: kept until their provider was asked to stop them, also when they are closed."""

from collections.abc import Sequence
from itertools import chain

from dispatcher.store.database import Database, Step


class Cancelling:
    """The part of the Store port that is about calls nobody wants any more."""

    db: Database

    async def take_cancels(self, account_id: int, n: int) -> list[str]:
        """The provider's ids of requests that it is time to ask it to stop; at most `n`.

        What has its result, or is wanted again, needs no asking any more.
        """
        keys = [row["key"] for row in await self.db.fetch("cancelling.take_cancels", account_id=account_id, n=n)]
        if not keys:
            return []
        parts = [row["part"] for row in await self.db.fetch("cancelling.parts_of", keys=keys)]
        steps: list[Step] = [("cancelling.cancellable", {"part": part, "keys": keys}) for part in parts]
        rows = list(chain.from_iterable(await self.db.message(steps) if steps else []))
        if over := [row["key"] for row in rows if row["is_over"]]:
            await self.db.fetch("cancelling.end_cancels", keys=over)
        return sorted({row["request"] for row in rows if row["may"] and not row["is_over"]})

    async def forget_cancels(self, account_id: int) -> None:
        """The provider of this account cannot be asked."""
        await self.db.fetch("cancelling.forget_cancels", account_id=account_id)

    async def stopped(self, account_id: int, requests: Sequence[str]) -> None:
        """The provider agreed to stop these requests of its; what became of their calls is looked up soon."""
        named = {"account_id": account_id, "requests": list(requests)}
        await self.db.message([("cancelling.stopped", named), ("cancelling.look_soon", named)])
