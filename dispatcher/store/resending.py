"""Requests whose answer was lost: kept, and given out to be sent again only where nothing can go wrong by it."""

from collections.abc import Sequence
from itertools import chain

from dispatcher.domain.account import AccountState
from dispatcher.domain.attempt import Call
from dispatcher.domain.campaign import CampaignState
from dispatcher.domain.permitting import REACHED_EARLIER, Candidate, PermitContext
from dispatcher.domain.resending import MOST_TRIES, RETRY_AFTER, SHARE_OF_WINDOW, ResendCandidate, resend_hold
from dispatcher.domain.results import Channel, LostRequest, Result
from dispatcher.domain.states import Phase
from dispatcher.store.campaigns import Policies
from dispatcher.store.database import PartitionGone, Row, Step
from dispatcher.store.permitting import LOCK_DNC_SHARED

_RULES = {"most_tries": MOST_TRIES, "share": SHARE_OF_WINDOW}


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
        await self.db.fetch("resending.end_expired", account_id=account_id, **_RULES)
        rows = await self.db.fetch("resending.take", account_id=account_id, n=n, retry_after=RETRY_AFTER, **_RULES)
        return [LostRequest(digest=row["digest"], body=row["body"], keys=tuple(row["keys"])) for row in rows]

    async def may_resend(self, account_id: int, request: LostRequest) -> list[Call] | None:
        """Its calls, when each of them may be asked for again; else None: the bytes cannot leave one out."""
        calls = [await self._candidate(row) for row in await self._candidates(account_id, list(request.keys))]
        if {call.key for call in calls} != set(request.keys) or any(map(resend_hold, calls)):
            return None
        return [Call(key=c.key, to=c.to, caller_id=c.caller_id, text="", channel=c.channel) for c in calls]

    async def _candidates(self, account_id: int, keys: Sequence[str]) -> list[Row]:
        parts = [row["part"] for row in await self.db.fetch("cancelling.parts_of", keys=keys)]
        asked = {"keys": keys, "reached": sorted(REACHED_EARLIER)}
        locks: list[Step] = [LOCK_DNC_SHARED, ("permitting.lock_account", {"account_id": account_id})]
        reads: list[Step] = [("resending.candidates", {**asked, "part": part}) for part in parts]
        try:
            answers = await self.db.message([*locks, *reads])
        except PartitionGone:  # a purge: none of its calls is open any more
            return []
        return list(chain.from_iterable(answers[len(locks) :]))

    async def _candidate(self, row: Row) -> ResendCandidate:
        return ResendCandidate(
            key=row["key"],
            to=row["to"],
            caller_id=row["caller_id"],
            channel=Channel(row["channel"]),
            phase=Phase(row["phase"]),
            permit_at=row["permit_at"],
            dedupe_window=row["dedupe_window"],
            row=Candidate(
                on_dnc=row["on_dnc"],
                reached=Result(row["reached"]) if row["reached"] else None,
                permits=row["permits"],
                dials=row["dials"],
                first_dialled_at=row["first_dialled_at"],
                last_result=Result(row["last_result"]) if row["last_result"] else None,
            ),
            context=PermitContext(
                now=row["now"],
                shift_is_live=False,
                account_state=AccountState(row["account_state"]),
                throttled_until=row["throttled_until"],
                campaign_state=CampaignState(row["campaign_state"]),
                policy_version=row["policy_version"],
                account_capacity=0,
                campaign_busy=0,
            ),
            policy_version=row["policy_version"],
            policy=await self.policy(row["campaign_id"], row["policy_version"]),
        )

    async def end_lost_requests(self, requests: Sequence[LostRequest]) -> None:
        """Never send these again."""
        await self.db.fetch("resending.end", digests=[request.digest for request in requests])
