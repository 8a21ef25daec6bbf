"""Requests whose answer was lost: kept, and given out to be sent again only where nothing can go wrong by it."""

from collections.abc import Sequence

from dispatcher.domain.attempt import Call
from dispatcher.domain.results import Channel, LostRequest
from dispatcher.store.campaigns import Policies
from dispatcher.store.permitting import LOCK_DNC_SHARED


class Resending(Policies):
    """The part of the Store port that is about frozen requests."""

    async def keep_lost_requests(self, account_id: int, requests: Sequence[LostRequest]) -> None:
        """Keep requests whose answer was lost."""
        for request in requests:
            await self.db.fetch(
                "resending.keep",
                digest=request.digest,
                account_id=account_id,
                body=request.body,
                keys=list(request.keys),
            )

    async def take_lost_requests(self, account_id: int, n: int) -> list[LostRequest]:
        """Requests that it is time to send again; nobody else does now."""
        await self.db.fetch("resending.end_expired", account_id=account_id)
        rows = await self.db.fetch("resending.take", account_id=account_id, n=n)
        return [LostRequest(digest=row["digest"], body=row["body"], keys=tuple(row["keys"])) for row in rows]

    async def may_resend(self, account_id: int, request: LostRequest) -> list[Call] | None:
        """Its calls, when each of them may still be dialled; else None: the bytes cannot leave one out."""

        *_, rows = await self.db.message(
            [
                LOCK_DNC_SHARED,
                ("permitting.lock_account", {"account_id": account_id}),
                ("resending.resendable", {"keys": list(request.keys)}),
            ]
        )
        for row in rows:
            policy = await self.policy(row["campaign_id"], row["policy_version"])
            if not row["may"] or (policy.window and not policy.window.window.is_open(row["now"])):
                return None
        if {row["key"] for row in rows} != set(request.keys):
            return None
        return [
            Call(key=r["key"], to=r["to"], caller_id=r["caller_id"], text="", channel=Channel(r["channel"]))
            for r in rows
        ]

    async def end_lost_requests(self, requests: Sequence[LostRequest]) -> None:
        """Never send these again."""
        await self.db.fetch("resending.end", digests=[request.digest for request in requests])
