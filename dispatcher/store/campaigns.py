"""Campaigns: created, moved, kept by the tick."""

from datetime import datetime
from typing import Any

from psycopg.types.json import Jsonb

from dispatcher.domain.campaign import CAMPAIGN_MOVES, Campaign, CampaignState, Policy
from dispatcher.domain.errors import NotAllowed, NotFound
from dispatcher.domain.tick import DueHead, DueMark, DueWork
from dispatcher.store.audit import write_audit
from dispatcher.store.database import Database, Row, Transaction


def campaign_of(row: Row) -> Campaign:
    """A row of `campaign`, joined with its newest policy, as our record."""
    return Campaign(
        id=row["id"],
        account_id=row["account_id"],
        part=row["part"],
        state=CampaignState(row["state"]),
        reason=row["reason"],
        policy_version=row["policy_version"],
        policy=Policy.model_validate(row["policy"]),
        created_at=row["created_at"],
    )


class Policies:
    """Versions of policies, kept in memory, because a version never changes."""

    db: Database
    _policies: dict[tuple[int, int], Policy]

    async def policy(self, campaign_id: int, version: int, tx: Transaction | None = None) -> Policy:
        """A frozen version of a policy."""
        key = (campaign_id, version)
        if key not in self._policies:
            params: dict[str, Any] = {"campaign_id": campaign_id, "version": version}
            where = tx or self.db
            row = await where.fetch_one("campaigns.policy", **params)
            assert row
            self._policies[key] = Policy.model_validate(row["body"])
        return self._policies[key]


class Campaigns(Policies):
    """The campaign half of the Store port."""

    async def create_campaign(self, account_id: int, policy: Policy, request_id: str | None = None) -> Campaign:
        """A DRAFT. The same request id gives the same campaign, however often it is sent."""

        async def work(tx: Transaction) -> int:
            made = await tx.fetch_one(
                "campaigns.create",
                account_id=account_id,
                name=policy.name,
                channel=policy.channel,
                weight=policy.weight,
                request_id=request_id,
            )
            if made is None:
                known = await tx.fetch_one("campaigns.by_request", request_id=request_id)
                assert known
                return int(known["id"])
            body = Jsonb(policy.model_dump(mode="json"))
            await tx.fetch("campaigns.add_policy", campaign_id=made["id"], version=1, body=body)
            await write_audit(tx, "operator", "campaign.created", f"campaign:{made['id']}", {"name": policy.name})
            return int(made["id"])

        return await self.campaign(await self.db.atomically(work))

    async def campaign(self, campaign_id: int) -> Campaign:
        """Raises NotFound."""
        row = await self.db.fetch_one("campaigns.by_id", id=campaign_id)
        if row is None:
            raise NotFound(f"there is no campaign {campaign_id}; see: dispatcher campaign list")
        return campaign_of(row)

    async def campaigns(self) -> list[Campaign]:
        return [campaign_of(row) for row in await self.db.fetch("campaigns.all")]

    async def move_campaign(
        self,
        campaign_id: int,
        to: CampaignState,
        *,
        actor: str,
        reason: str | None = None,
        request_id: str | None = None,
        from_: CampaignState | None = None,
    ) -> Campaign:
        """Start, pause, resume or abort. Raises NotFound, NotAllowed. The same request id is done once.

        `from_`: the only state to come from, where several could become `to`.

        Takes the account's row lock first, which every permit holds until it commits: once a pause has
        committed, no new permit exists.
        """
        account_id = (await self.campaign(campaign_id)).account_id
        act, subject = f"campaign.{to.lower()}", f"campaign:{campaign_id}"

        async def work(tx: Transaction) -> None:
            await tx.fetch("campaigns.be_impatient")
            await tx.fetch("dialling.lock_account", account_id=account_id)
            row = await tx.fetch_one("campaigns.lock", id=campaign_id)
            assert row
            if request_id is not None and await _was_done(tx, request_id, act, subject):
                return
            state = CampaignState(row["state"])
            if state not in CAMPAIGN_MOVES[to] or from_ not in (None, state):
                raise NotAllowed(_why_not(campaign_id, state, to))
            await tx.fetch("campaigns.move", id=campaign_id, state=to, reason=reason)
            if to is CampaignState.ABORTED:
                await tx.fetch("cancelling.cancel_campaign", account_id=account_id, campaign_id=campaign_id)
            await write_audit(tx, actor, act, subject, {"from": state, "reason": reason})

        await self.db.atomically(work)
        return await self.campaign(campaign_id)

    async def due_heads(self) -> list[DueHead]:
        """For every running campaign, when its first row is due and whether anything is still open."""
        heads = []
        for row in await self.db.fetch("campaigns.due_heads"):
            policy = await self.policy(row["id"], row["policy_version"])
            idle = not row["has_open"] and not row["has_open_load"] and row["has_load"]
            heads.append(DueHead(row["id"], row["account_id"], policy.window, row["due_at"], idle, row["now"]))
        return heads

    async def mark_due(self, marks: list[DueMark]) -> None:
        """What the shifts read: when each campaign has work next."""
        await self.db.fetch(
            "campaigns.set_due",
            campaigns=[m.campaign_id for m in marks],
            accounts=[m.account_id for m in marks],
            due=[m.next_due_at for m in marks],
            blocked=[m.blocked_by for m in marks],
        )

    async def due_work(self, account_id: int, n: int) -> list[DueWork]:
        """The account's campaigns with rows to dial now; each counts at most `n` of a kind."""
        rows = await self.db.fetch("campaigns.due_work", account_id=account_id, n=n)
        return [
            DueWork(
                row["id"],
                row["part"],
                row["weight"],
                row["policy_version"],
                await self.policy(row["id"], row["policy_version"]),
                min(row["due"], row["room"]),
            )
            for row in rows
            if min(row["due"], row["room"]) > 0
        ]

    async def finish_campaign(self, campaign_id: int) -> bool:
        """RUNNING -> DONE when every row is final and no load is open; True when it was."""

        async def work(tx: Transaction) -> bool:
            await tx.fetch("campaigns.lock", id=campaign_id)
            row = await tx.fetch_one("campaigns.is_over", id=campaign_id)
            if row is None or not row["is_over"]:
                return False
            await tx.fetch("campaigns.move", id=campaign_id, state=CampaignState.DONE, reason=None)
            await write_audit(tx, "system", "campaign.done", f"campaign:{campaign_id}", {})
            return True

        return await self.db.atomically(work)

    async def abort_waiting(self, n: int) -> int:
        """Finish up to `n` waiting rows of aborted campaigns; how many there were."""
        row = await self.db.fetch_one("campaigns.abort_waiting", n=n)
        return int(row["n"]) if row else 0

    async def fold_counters(self) -> None:
        await self.db.fetch("campaigns.fold_counters")

    async def measure_pace(self) -> dict[int, datetime]:
        """Campaigns whose pace was measured now, every five seconds each -> when."""
        return {row["campaign_id"]: row["at"] for row in await self.db.fetch("campaigns.measure_pace")}

    async def alert_once(self, act: str, subject: str, detail: dict[str, Any]) -> bool:
        """Write an act of the system that a person should see, once for each subject; True when it is new."""
        row = await self.db.fetch_one("campaigns.alert_once", act=act, subject=subject, detail=Jsonb(detail))
        return row is not None


async def _was_done(tx: Transaction, request_id: str, act: str, subject: str) -> bool:
    """Raises NotAllowed when the id was given to something else."""
    if await tx.fetch_one("campaigns.ask_once", id=request_id, act=act, subject=subject):
        return False
    if await tx.fetch_one("campaigns.asked", id=request_id) != {"act": act, "subject": subject}:
        raise NotAllowed("this request id was used for something else (campaigns share them); choose a new one")
    return True


def _why_not(campaign_id: int, state: CampaignState, to: CampaignState) -> str:
    if state is to:
        return f"campaign {campaign_id} is {state} already"
    if state in (CampaignState.DONE, CampaignState.ABORTED):
        return f"campaign {campaign_id} is {state}, which is final; make a new campaign to dial again"
    if to is CampaignState.RUNNING:
        verb = "start" if state is CampaignState.DRAFT else "resume"
        return f"campaign {campaign_id} is {state}; use: dispatcher campaign {verb} {campaign_id}"
    allowed = " or ".join(sorted(CAMPAIGN_MOVES[to]))
    return f"campaign {campaign_id} is {state}; only a campaign that is {allowed} can become {to}"
