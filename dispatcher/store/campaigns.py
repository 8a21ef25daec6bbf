"""Campaigns: created, moved, kept by the tick."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import timedelta
from itertools import chain
from typing import Any

from psycopg.types.json import Jsonb

from dispatcher.domain.account import Account
from dispatcher.domain.audit import AuditActor
from dispatcher.domain.campaign import CAMPAIGN_MOVES, Campaign, CampaignState, Policy
from dispatcher.domain.errors import NotAllowed, NotFound, Refused
from dispatcher.domain.tick import (
    MEASURED_AFTER_END,
    MEASURED_OFTEN,
    MEASURED_SELDOM,
    CampaignRef,
    DueHead,
    DueMark,
    DueWork,
    Upkeep,
)
from dispatcher.store.accounts import account_of
from dispatcher.store.audit import write_audit
from dispatcher.store.database import APPLICATION, Database, PartitionGone, Row, Step, Transaction

OLDEST_TRANSACTION = timedelta(seconds=10)
MOST_CHECKED, MOST_REAPED = 500, 500
MOST_MEASURED = 20
"""In one tick, and shown by it; the others come in the next ones."""
_KNOWN_PARTS = 8
MOST_AT_ONCE = 50
"""Campaigns of one account that a shift dials for, and parts that it looks into."""
MOST_FOLDED = 20_000
_MEASURING = {"often": MEASURED_OFTEN, "seldom": MEASURED_SELDOM, "ended_for": MEASURED_AFTER_END}


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
        purged_at=row["purged_at"],
    )


class Policies:
    """Versions of policies, kept in memory, because a version never changes."""

    db: Database
    _policies: dict[tuple[int, int], Policy]
    _work_parts: list[int]
    """Parts whose campaigns had work lately: most work is there."""

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
            await write_audit(
                tx, AuditActor.OPERATOR, "campaign.created", f"campaign:{made['id']}", {"name": policy.name}
            )
            return int(made["id"])

        return await self.campaign(await self.db.atomically(work))

    async def campaign(self, campaign_id: int) -> Campaign:
        """Raises NotFound."""
        row = await self.db.fetch_one("campaigns.by_id", id=campaign_id)
        if row is None:
            raise NotFound(f"there is no campaign {campaign_id}; see: dispatcher campaign list")
        return campaign_of(row)

    async def campaigns(self, *, state: CampaignState | None = None, n: int | None = None) -> list[Campaign]:
        """The newest `n`, or all, the oldest of them first."""
        rows = await self.db.fetch("campaigns.newest", state=state, n=n)
        return [campaign_of(row) for row in reversed(rows)]

    async def waiting_campaigns(self) -> list[int]:
        """Those in which a row may wait."""
        return sorted(chain.from_iterable(row["ids"] for row in await self.db.fetch("campaigns.waiting")))

    async def move_campaign(
        self,
        campaign_id: int,
        to: CampaignState,
        *,
        actor: AuditActor,
        reason: str | None = None,
        request_id: str | None = None,
        from_: CampaignState | None = None,
    ) -> Campaign:
        """Start, pause, resume or abort. Raises NotFound, NotAllowed. The same request id is done once.

        `from_`: the only state to come from, where several could become `to`.

        Takes the account's lock first, which every permit holds until it commits: once a pause has committed, no new
        permit exists.
        """
        account_id = (await self.campaign(campaign_id)).account_id
        move = {
            "id": campaign_id,
            "state": to,
            "from": sorted({from_} & CAMPAIGN_MOVES[to] if from_ else CAMPAIGN_MOVES[to]),
            "reason": reason,
            "actor": actor,
            "act": f"campaign.{to.lower()}",
            "subject": f"campaign:{campaign_id}",
            "request_id": request_id,
        }
        steps: list[Step] = [("permitting.lock_account", {"account_id": account_id}), ("campaigns.move", move)]
        if to is CampaignState.ABORTED:
            steps.append(("cancelling.cancel_campaign", {"account_id": account_id, "campaign_id": campaign_id}))
        try:
            answer = await self.db.message(steps)
        except Refused:  # the same request id was used at the same time
            answer = await self.db.message(steps)
        (row,) = answer[1]
        if not row["moved"]:
            _require_done_before(row, move)
        return await self.campaign(campaign_id)

    async def campaigns_to_check(self, n: int) -> list[CampaignRef]:
        """Campaigns in which something has moved, or at which it is time to look."""
        return [_moved(row) for row in await self.db.fetch("campaigns.to_check", n=n)]

    async def due_heads(self, campaigns: Sequence[CampaignRef]) -> list[DueHead]:
        """Of these campaigns, if they run: when the first row is due, and whether anything is still open."""
        by_part: dict[int, list[int]] = defaultdict(list)
        for moved in campaigns:
            by_part[moved.part].append(moved.campaign_id)
        steps: list[Step] = [
            ("campaigns.due_heads", {"part": part, "campaigns": ids}) for part, ids in sorted(by_part.items())
        ]
        heads = []
        for row in chain.from_iterable(await self.db.message(steps) if steps else []):
            policy = await self.policy(row["id"], row["policy_version"])
            idle = not row["has_open"] and not row["has_open_load"] and row["has_load"]
            heads.append(
                DueHead(row["id"], row["account_id"], policy.window, row["due_at"], idle, row["now"], row["version"])
            )
        return heads

    async def mark_due(self, marks: Sequence[DueMark]) -> None:
        """What the shifts read: when each campaign has work next."""
        if marks:
            await self.db.fetch(
                "campaigns.set_due",
                campaigns=[m.campaign_id for m in marks],
                due=[m.next_due_at for m in marks],
                blocked=[m.blocked_by for m in marks],
                look=[m.check_at for m in marks],
                moved=[m.check_again for m in marks],
                versions=[m.version for m in marks],
            )

    async def due_work(self, account_id: int, n: int) -> tuple[Account, list[DueWork]]:
        """The account as it stands, and its campaigns with rows to dial now; each counts at most `n` of a kind."""
        try:
            accounts, *rows, others = await self.db.message(_work_in(self._work_parts, account_id, n))
        except PartitionGone:
            self._work_parts[:] = [0]
            accounts, *rows, others = await self.db.message(_work_in(self._work_parts, account_id, n))
        if others:
            found = [row["part"] for row in others]
            rows += await self.db.message(_due_in(found, account_id, n))
            self._work_parts[:] = [*found, *self._work_parts][:_KNOWN_PARTS]
        if not accounts:
            raise NotFound(f"there is no account {account_id}; see: dispatcher account list")
        account = account_of(accounts[0])
        work = [await self._work(row, account) for row in chain.from_iterable(rows)]
        return account, [w for w in work if w.due > 0]

    async def _work(self, row: Row, account: Account) -> DueWork:
        policy = await self.policy(row["id"], row["policy_version"])
        capacity = min(row["account_capacity"], policy.in_flight - row["busy"])
        due = min(row["due"], capacity)
        return DueWork(row["id"], row["part"], row["weight"], row["policy_version"], policy, due)

    async def finish_campaign(self, campaign_id: int) -> bool:
        """RUNNING -> DONE when every row is final and no load is open; True when it was."""
        (row,) = await self.db.fetch("campaigns.part_of", id=campaign_id)
        _, done = await self.db.message(
            [
                ("campaigns.lock", {"id": campaign_id}),
                ("campaigns.finish", {"id": campaign_id, "part": row["part"]}),
            ]
        )
        return bool(done)

    async def abort_waiting(self, campaign: CampaignRef, n: int) -> int:
        """Finish up to `n` waiting rows of an aborted campaign; how many there were."""
        place = {"part": campaign.part, "campaign_id": campaign.campaign_id}
        (row,) = await self.db.fetch("campaigns.abort_waiting", **place, n=n)
        if row["n"] == 0:
            await self.db.fetch("campaigns.unnotice", **place)
        return int(row["n"])

    async def upkeep(self) -> Upkeep:
        """What the tick does for everybody, and what it finds to do; one message."""
        steps: list[Step] = [
            ("campaigns.end_old_sessions", {"application": APPLICATION, "older": OLDEST_TRANSACTION}),
            ("campaigns.beat", {}),
            ("campaigns.fold_counters", {"n": MOST_FOLDED}),
            ("campaigns.measure_pace", {"n": MOST_MEASURED, **_MEASURING}),
            ("campaigns.to_check", {"n": MOST_CHECKED}),
            ("settling.expired_leases", {"n": MOST_REAPED}),
            ("loads.dead", {}),
            ("postbacks.wait", {}),
            ("lookups.accounts_to_ask", {}),
            ("accounts.due_probes", {}),
            ("dnc.has_ended_pages", {}),
            ("purging.oldest_body", {}),
        ]
        *_, measured, looked, expired, dead, waits, ask, probes, pages, bodies = await self.db.message(steps)
        return Upkeep(
            moved=tuple(_moved(row) for row in looked),
            expired=tuple(row["key"] for row in expired),
            has_dead_loads=bool(dead),
            postbacks_wait=waits[0]["waits"],
            accounts_to_ask=tuple(row["account_id"] for row in ask),
            accounts_to_probe=tuple(row["id"] for row in probes),
            has_ended_pages=pages[0]["has_ended_pages"],
            oldest_body_age=bodies[0]["age"] if bodies else None,
            measured={row["campaign_id"]: row["at"] for row in measured},
        )

    async def alert_once(self, act: str, subject: str, detail: dict[str, Any]) -> bool:
        """Write an act of the system that a person should see, once for each subject; True when it is new."""
        row = await self.db.fetch_one("campaigns.alert_once", act=act, subject=subject, detail=Jsonb(detail))
        return row is not None


def _moved(row: Row) -> CampaignRef:
    return CampaignRef(row["id"], row["part"], CampaignState(row["state"]))


def _work_in(parts: Sequence[int], account_id: int, n: int) -> list[Step]:
    rest: Step = ("campaigns.parts_with_work", {"account_id": account_id, "known": list(parts), "most": MOST_AT_ONCE})
    return [("accounts.by_id", {"id": account_id}), *_due_in(parts, account_id, n), rest]


def _due_in(parts: Sequence[int], account_id: int, n: int) -> list[Step]:
    return [
        ("campaigns.due_work", {"part": part, "account_id": account_id, "n": n, "most": MOST_AT_ONCE}) for part in parts
    ]


def _require_done_before(row: Row, move: Mapping[str, Any]) -> None:
    """Raises NotAllowed unless the request was carried out before."""
    if row["asked_act"] is None:
        raise NotAllowed(_why_not(move["id"], CampaignState(row["was"]), move["state"]))
    if (row["asked_act"], row["asked_subject"]) != (move["act"], move["subject"]):
        raise NotAllowed("this request id was used for something else (campaigns share them); choose a new one")


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
