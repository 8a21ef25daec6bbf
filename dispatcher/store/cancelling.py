"""Calls that are to ring no more: kept until their provider was asked to stop them, also when they are closed."""

from collections.abc import Sequence
from itertools import chain

from dispatcher.domain.cancelling import (
    FIRST_WAIT,
    GIVE_UP_AFTER,
    LONGEST_WAIT,
    LOOKUP_AFTER_STOP,
    PERMITTED_TOGETHER,
    SHARE_OF_AGE,
    CancelCandidate,
    CancelReason,
    Sharing,
)
from dispatcher.domain.states import Phase
from dispatcher.store.database import Database, Row, Step

_WAITS = {
    "first_wait": FIRST_WAIT,
    "longest_wait": LONGEST_WAIT,
    "share_of_age": SHARE_OF_AGE,
    "give_up_after": GIVE_UP_AFTER,
}


class Cancelling:
    """The part of the Store port that is about calls nobody wants any more."""

    db: Database

    async def take_cancels(self, account_id: int, n: int) -> list[str]:
        """The provider's ids of requests that it is time to ask it to stop; at most `n`.

        What has its result, or is wanted again, needs no asking any more.
        """
        taken = await self.db.fetch("cancelling.take_cancels", account_id=account_id, n=n, **_WAITS)
        keys = [row["key"] for row in taken]
        if not keys:
            return []
        parts = [row["part"] for row in await self.db.fetch("cancelling.parts_of", keys=keys)]
        asked = {"keys": keys, "together": PERMITTED_TOGETHER}
        steps: list[Step] = [("cancelling.candidates", {**asked, "part": part}) for part in parts]
        rows = chain.from_iterable(await self.db.message(steps) if steps else [])
        calls = [_candidate(row) for row in rows]
        if over := [call.key for call in calls if call.is_over]:
            await self.db.fetch("cancelling.end_cancels", keys=over)
        return sorted({call.request_id for call in calls if call.request_id and call.may_be_stopped})

    async def forget_cancels(self, account_id: int) -> None:
        """The provider of this account cannot be asked."""
        await self.db.fetch("cancelling.forget_cancels", account_id=account_id)

    async def stopped(self, account_id: int, requests: Sequence[str]) -> None:
        """The provider agreed to stop these requests of its; what became of their calls is looked up soon."""
        named = {"account_id": account_id, "requests": list(requests)}
        await self.db.message(
            [("cancelling.stopped", named), ("cancelling.look_soon", {**named, "lookup_after": LOOKUP_AFTER_STOP})]
        )


def _candidate(row: Row) -> CancelCandidate:
    sharing = zip(row["sharing_whys"], row["sharing_listed"], strict=True)
    return CancelCandidate(
        key=row["key"],
        request_id=row["request_id"],
        phase=Phase(row["phase"]),
        call=_sharing(row["why"], row["is_listed"]),
        sharing=[_sharing(why, is_listed) for why, is_listed in sharing],
    )


def _sharing(why: str | None, is_listed: bool | None) -> Sharing:
    return Sharing(CancelReason(why) if why else None, bool(is_listed))
