"""The permit: the only permission to dial, given in one message."""

from collections.abc import Sequence
from typing import Any

from dispatcher.domain.account import AccountState
from dispatcher.domain.attempt import Shift
from dispatcher.domain.campaign import CampaignState
from dispatcher.domain.permitting import PermitContext, PermitRequest, Permits, Permitted, held_by
from dispatcher.domain.results import Result
from dispatcher.domain.settling import BUSY_WAIT
from dispatcher.store.database import Database, Row, Step

DNC_LOCK = 7_261_001
"""The advisory lock between permits (shared) and writers of do-not-call lists (exclusive)."""
DNC_PATIENCE = "200ms"
"""Whoever holds that lock waits no longer for another; a permit that gives up is asked for again."""
LOCK_DNC_SHARED: Step = ("permitting.lock_dnc_shared", {"lock": DNC_LOCK, "patience": DNC_PATIENCE})
MOST_COUNTED = 500
"""Due rows are counted no further."""


class Permitting:
    """The part of the Store port that is about permits."""

    db: Database

    async def permit(self, ask: PermitRequest) -> Permits:
        """Up to len(ask.keys) due rows of one campaign become SELECTED, each with an attempt that may be sent.

        It is committed before it is given. When this raises ServerError the answer is lost, and the rows may be
        permitted all the same, even later: see `void_permits`.
        """
        part = {"part": ask.work.part, "campaign_id": ask.work.campaign_id}
        _, _, gates, rows, left = await self.db.message(
            [
                LOCK_DNC_SHARED,
                ("permitting.lock_account", {"account_id": ask.shift.account_id}),
                ("permitting.take", {**part, **_take(ask)}),
                ("permitting.grant", {**part, **_grant(ask)}),
                ("permitting.left", {**part, "n": MOST_COUNTED}),
            ]
        )
        granted = tuple(_permitted(row, ask) for row in rows if row["refusal"] is None)
        return Permits(
            granted=granted,
            refused=len(rows) - len(granted),
            held=held_by(_permit_context(gates[0]), ask.terms),
            due_left=left[0]["due"],
        )

    async def void_permits(self, shift: Shift) -> Shift | None:
        """Make permits void that are still on their way to the server; the shift with its new epoch.

        Waits for one that the server is working on: when this returns, its rows are there, or never will be. None
        when the shift's slot is gone; then everything on its way is void as well.
        """
        _, rows = await self.db.message(
            [
                ("permitting.lock_account", {"account_id": shift.account_id}),
                (
                    "permitting.raise_epoch",
                    {"account_id": shift.account_id, "slot": shift.slot, "owner": shift.owner},
                ),
            ]
        )
        return Shift(shift.account_id, shift.slot, shift.owner, rows[0]["epoch"]) if rows else None

    async def existing(self, keys: Sequence[str]) -> list[str]:
        """Which of these keys belong to open attempts."""
        return [row["key"] for row in await self.db.fetch("permitting.existing", keys=list(keys))]


def _take(ask: PermitRequest) -> dict[str, Any]:
    return {
        "account_id": ask.shift.account_id,
        "slot": ask.shift.slot,
        "owner": ask.shift.owner,
        "epoch": ask.shift.epoch,
        "channel": ask.work.policy.channel,
        "caller_id": ask.caller_id,
        "policy_version": ask.terms.policy_version,
        "keys": list(ask.keys),
        "n": len(ask.keys),
        "retries": ask.retries,
        "in_flight": ask.terms.in_flight,
        "opens_at": ask.terms.opens_at,
        "closes_at": ask.terms.closes_at,
        "lease": ask.lease,
        "busy_wait": BUSY_WAIT,
    }


def _grant(ask: PermitRequest) -> dict[str, Any]:
    return {
        "account_id": ask.shift.account_id,
        "keys": list(ask.keys),
        "reached": sorted(ask.terms.reached),
        "max_permits": ask.terms.max_permits,
        "max_dials": ask.terms.max_dials,
        "deadline": ask.terms.deadline,
    }


def _permit_context(row: Row) -> PermitContext:
    return PermitContext(
        now=row["now"],
        shift_is_live=row["shift_is_live"],
        account_state=AccountState(row["account_state"]),
        throttled_until=row["throttled_until"],
        campaign_state=CampaignState(row["campaign_state"]),
        policy_version=row["policy_version"],
        account_capacity=row["account_capacity"],
        campaign_busy=row["campaign_busy"],
    )


def _permitted(row: Row, ask: PermitRequest) -> Permitted:
    return Permitted(
        key=row["key"],
        part=ask.work.part,
        destination_id=row["destination_id"],
        campaign_id=ask.work.campaign_id,
        fence=row["fence"],
        e164=row["e164"],
        caller_id=ask.caller_id,
        variables=row["variables"] or {},
        permit_at=row["permit_at"],
        permits=row["permits"],
        dials=row["dials"],
        due_at=row["due_at"],
        first_dialled_at=row["first_dialled_at"],
        last_result=Result(row["last_result"]) if row["last_result"] else None,
        version=row["version"],
    )
