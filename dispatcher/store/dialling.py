"""Claim, permit, settle: the only code that moves a destination once it is loaded."""

from collections import Counter
from collections.abc import Sequence
from datetime import timedelta
from functools import partial

from dispatcher.domain.account import AccountState
from dispatcher.domain.attempt import Claimed, OpenCall
from dispatcher.domain.campaign import CampaignState, Policy
from dispatcher.domain.permitting import Applicant, Gate, Refusal, Stale, grant, refused
from dispatcher.domain.results import Channel, Disposition, News, Outcome, Result, Sighting, Source
from dispatcher.domain.settling import Decision, Situation, next_step
from dispatcher.domain.states import Phase, RetryOwner, State
from dispatcher.domain.tick import DueWork
from dispatcher.store.campaigns import Policies
from dispatcher.store.database import Row, Transaction
from dispatcher.store.moves import Move, write_moves

DNC_LOCK = 7_261_001
"""The advisory lock between permits (shared) and writers of do-not-call lists (exclusive)."""


class Dialling(Policies):
    """The dialling half of the Store port."""

    async def claim(
        self,
        work: DueWork,
        account_id: int,
        keys: Sequence[str],
        *,
        caller_id: str,
        retries: int,
        owner: str,
        lease: timedelta,
    ) -> list[Claimed]:
        """TX-A: up to len(keys) due rows of one campaign become SELECTED, each with an attempt in INTENT.

        At least `retries` of them may be redials, so that new rows do not starve people who were promised one.
        """
        rows = await self.db.fetch(
            "dialling.claim",
            part=work.part,
            campaign_id=work.campaign_id,
            account_id=account_id,
            channel=work.policy.channel,
            caller_id=caller_id,
            policy_version=work.policy_version,
            keys=list(keys),
            n=len(keys),
            retries=retries,
            owner=owner,
            lease=lease,
        )
        return [
            Claimed(
                key=row["key"],
                part=work.part,
                destination_id=row["destination_id"],
                campaign_id=work.campaign_id,
                fence=row["fence"],
                e164=row["e164"],
                caller_id=caller_id,
                variables=row["variables"] or {},
            )
            for row in rows
        ]

    async def permit(
        self, account_id: int, group: Sequence[Claimed], *, owner: str, lease: timedelta
    ) -> tuple[set[str], dict[str, Refusal]]:
        """TX-B: the only permission to dial, for attempts of one campaign, written durably before it is given.

        Gives the keys that may be dialled and what became of the others. When it raises, nothing was given:
        the caller dials nobody and withdraws the group.
        """
        part, campaign_id = group[0].part, group[0].campaign_id
        keys = [c.key for c in group]

        async def work(tx: Transaction) -> tuple[set[str], dict[str, Refusal]]:
            *_, gates, rows = await tx.pipeline(
                [
                    ("dialling.lock_dnc_shared", {"lock": DNC_LOCK}),
                    ("dialling.lock_account", {"account_id": account_id}),
                    ("dialling.lock_destinations", {"part": part, "ids": [c.destination_id for c in group]}),
                    ("dialling.lock_open_attempts", {"keys": keys}),
                    ("dialling.gate", {"account_id": account_id, "campaign_id": campaign_id}),
                    ("dialling.applicants", {"part": part, "keys": keys, "owner": owner}),
                ]
            )
            gate = _gate(gates[0], await self.policy(campaign_id, gates[0]["policy_version"], tx))
            granted, refusals = grant([_applicant(row) for row in rows], gate)
            if granted:
                await tx.fetch("dialling.grant", keys=granted, part=part, campaign_id=campaign_id, lease=lease)
            places = {row["key"]: row for row in rows}
            await write_moves(
                tx,
                [
                    Move.of(places[key], refused(key, campaign_id, refusal))
                    for key, refusal in refusals.items()
                    if not isinstance(refusal, Stale)
                ],
            )
            gone = {key: Stale() for key in keys if key not in places}
            return set(granted), refusals | gone

        return await self.db.atomically(work)

    async def settle(self, news: Sequence[News], draws: Sequence[float]) -> list[Decision]:
        """TX-C: everything we heard becomes steps, in one transaction. Idempotent and free of order.

        Of several news about one attempt each is decided on what the one before it left, in turns.
        """
        decided: list[Decision] = []
        waiting = list(zip(news, draws, strict=True))
        while waiting:
            turn: dict[str, tuple[News, float]] = {}
            later = []
            for item in waiting:
                if item[0].key in turn:
                    later.append(item)
                else:
                    turn[item[0].key] = item
            decided += await self.db.atomically(partial(self._settle_once, turn=turn))
            waiting = later
        return decided

    async def _settle_once(self, tx: Transaction, turn: dict[str, tuple[News, float]]) -> list[Decision]:
        keys = sorted(turn)
        _, _, rows = await tx.pipeline(
            [
                ("dialling.lock_destinations_of", {"keys": keys}),
                ("dialling.lock_open_attempts", {"keys": keys}),
                ("dialling.situations", {"keys": keys}),
            ]
        )
        decisions = []
        for row in rows:
            news, draw = turn[row["key"]]
            decisions.append(next_step(news, await self._situation(row, tx), draw))
        await write_moves(tx, [Move.of(row, d) for row, d in zip(rows, decisions, strict=True)])
        return decisions

    async def _situation(self, row: Row, tx: Transaction) -> Situation:
        return Situation(
            key=row["key"],
            campaign_id=row["campaign_id"],
            phase=Phase(row["phase"]),
            is_latest=row["is_latest"],
            permit_at=row["permit_at"],
            lease_over=row["lease_over"],
            looks=row["looks"],
            resolve_by=row["resolve_by"],
            attempt_result=Result(row["attempt_result"]) if row["attempt_result"] else None,
            state=State(row["state"]),
            retry_owner=RetryOwner(row["retry_owner"]),
            permits=row["permits"],
            charged=row["charged"],
            crashes=row["crashes"],
            due_at=row["due_at"],
            first_dialled_at=row["first_dialled_at"],
            last_result=Result(row["last_result"]) if row["last_result"] else None,
            campaign_state=CampaignState(row["campaign_state"]),
            policy=await self.policy(row["campaign_id"], row["policy_version"], tx),
            on_dnc=row["on_dnc"],
            now=row["now"],
        )

    async def expired_leases(self, n: int) -> list[News]:
        """News for the reaper: attempts whose worker did not come back in time."""
        gone = Outcome(disposition=Disposition.LEASE_OVER)
        return [News(row["key"], gone, Source.REAPER) for row in await self.db.fetch("dialling.expired_leases", n=n)]

    async def accounts_to_ask(self) -> list[int]:
        """Accounts with something that it is time to ask the provider."""
        return [row["account_id"] for row in await self.db.fetch("dialling.accounts_to_ask")]

    async def take_lookups(self, account_id: int, n: int) -> list[OpenCall]:
        """Attempts without a result that it is time to ask about, the longest due first; nobody else asks now."""
        rows = await self.db.fetch("dialling.take_lookups", account_id=account_id, n=n)
        return [_open_call(row) for row in sorted(rows, key=lambda row: row["due_at"])]

    async def match(self, account_id: int, sightings: Sequence[Sighting]) -> list[str | None]:
        """The attempt of each sighting; its number and channel must agree.

        By our key, by the provider's id of the call, or by its id of the request together with the number.
        """
        rows = await self.db.fetch(
            "dialling.match",
            account_id=account_id,
            keys=[s.key for s in sightings if s.key],
            calls=[c for s in sightings if (c := s.outcome.provider_call_id)],
            requests=[s.request_id for s in sightings if s.request_id and s.to],
            numbers=[s.to for s in sightings if s.request_id and s.to],
        )
        by_key = {row["key"]: row for row in rows}
        by_call = {row["call"]: row for row in rows if row["call"]}
        by_request = {(row["request"], row["e164"]): row for row in rows if row["request"]}
        found: list[str | None] = []
        for sighting in sightings:
            row = by_key.get(sighting.key) or by_call.get(sighting.outcome.provider_call_id)
            row = row or _fitting(by_request.get((sighting.request_id, sighting.to)), sighting)
            agrees = row is not None and sighting.to in (None, row["e164"]) and sighting.channel == row["channel"]
            found.append(row["key"] if row and agrees else None)
        return found

    async def match_by_number(self, account_id: int, sightings: Sequence[Sighting]) -> list[str | None]:
        """The single open attempt with the sighting's number, permitted before the call began: the last resort."""
        asked = [s for s in sightings if s.to]
        rows = await self.db.fetch(
            "dialling.match_numbers",
            account_id=account_id,
            numbers=[s.to for s in asked],
            channels=[s.channel for s in asked],
            created=[s.created_at for s in asked],
        )
        by_number = {row["to"]: row["key"] for row in rows}
        once = Counter(s.to for s in asked)
        return [by_number.get(s.to) if s.to and once[s.to] == 1 else None for s in sightings]


def _fitting(row: Row | None, sighting: Sighting) -> Row | None:
    """Found by request and number only: it must be of no other call."""
    if row is None or row["call"] not in (None, sighting.outcome.provider_call_id):
        return None
    return row


def _open_call(row: Row) -> OpenCall:
    return OpenCall(
        key=row["key"],
        to=row["to"],
        channel=Channel(row["channel"]),
        phase=Phase(row["phase"]),
        permit_at=row["permit_at"],
        provider_call_id=row["provider_call_id"],
        provider_request_id=row["provider_request_id"],
        provider_owned=row["provider_owned"],
        flow=row["flow"],
        resolve_by=row["resolve_by"],
        as_of=row["now"],
    )


def _gate(row: Row, policy: Policy) -> Gate:
    return Gate(
        now=row["now"],
        account_state=AccountState(row["account_state"]),
        throttled_until=row["throttled_until"],
        campaign_state=CampaignState(row["campaign_state"]),
        policy=policy,
        account_room=row["in_flight"] - row["account_busy"],
        campaign_room=policy.in_flight - row["campaign_busy"],
    )


def _applicant(row: Row) -> Applicant:
    return Applicant(
        key=row["key"],
        e164=row["e164"],
        phase=Phase(row["phase"]),
        state=State(row["state"]),
        is_latest=row["is_latest"],
        lease_over=row["lease_over"],
        permits=row["permits"],
        charged=row["charged"],
        due_at=row["due_at"],
        first_dialled_at=row["first_dialled_at"],
        last_result=Result(row["last_result"]) if row["last_result"] else None,
        on_dnc=row["on_dnc"],
        reached=Result(row["reached"]) if row["reached"] else None,
    )
