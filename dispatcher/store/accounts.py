"""Accounts and the shifts that dial for them."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from psycopg.types.json import Jsonb

from dispatcher.domain.account import (
    NEVER,
    SLOT_IS_NEAR,
    Account,
    AccountState,
    NewAccount,
    StopReason,
    probe_after,
    slowed,
    stops_now,
)
from dispatcher.domain.attempt import Shift
from dispatcher.domain.audit import AuditActor
from dispatcher.domain.errors import NotAllowed, NotFound
from dispatcher.store.audit import write_audit
from dispatcher.store.database import Database, Row, Transaction

_TURNS = 5
EDITABLE = (
    "base_url",
    "credentials",
    "cps",
    "headroom",
    "in_flight",
    "in_flight_ttl",
    "shifts",
    "calls_per_request",
    "options",
)


def account_of(row: Row) -> Account:
    """A row of `account` as our record."""
    return Account(
        id=row["id"],
        name=row["name"],
        provider=row["provider"],
        base_url=row["base_url"],
        credentials=row["credentials"],
        cps=row["cps"],
        headroom=row["headroom"],
        in_flight=row["in_flight"],
        in_flight_ttl=row["in_flight_ttl"],
        shifts=row["shifts"],
        calls_per_request=row["calls_per_request"],
        options=row["options"],
        dedupe_window=row["dedupe_window"],
        state=AccountState(row["state"]),
        reason=row["reason"],
        pace=row["pace"],
        throttled_at=row["throttled_at"],
        throttled_until=row["throttled_until"],
        stops=row["stops"],
        stopped_at=row["stopped_at"],
        as_of=row["as_of"],
    )


class Accounts:
    """The account half of the Store port."""

    db: Database

    async def add_account(self, new: NewAccount) -> Account:
        """Raises NotAllowed when the name is taken."""

        async def work(tx: Transaction) -> Account:
            made = await tx.fetch_one(
                "accounts.add",
                name=new.name,
                provider=new.provider,
                base_url=new.base_url,
                credentials=new.credentials,
                cps=new.cps,
                headroom=new.headroom,
                in_flight=new.in_flight,
                in_flight_ttl=new.in_flight_ttl,
                shifts=new.shifts,
                calls_per_request=new.calls_per_request,
                options=Jsonb(dict(new.options)),
            )
            if made is None:
                raise NotAllowed(f"there is an account '{new.name}' already; choose another name")
            await write_audit(tx, AuditActor.OPERATOR, "account.added", f"account:{made['id']}", {"name": new.name})
            row = await tx.fetch_one("accounts.by_id", id=made["id"])
            assert row
            return account_of(row)

        return await self.db.atomically(work)

    async def accounts(self) -> list[Account]:
        return [account_of(row) for row in await self.db.fetch("accounts.all")]

    async def account(self, account_id: int) -> Account:
        """Raises NotFound."""
        row = await self.db.fetch_one("accounts.by_id", id=account_id)
        if row is None:
            raise NotFound(f"there is no account {account_id}; see: dispatcher account list")
        return account_of(row)

    async def account_named(self, name: str) -> Account:
        """Raises NotFound."""
        row = await self.db.fetch_one("accounts.by_name", name=name)
        if row is None:
            raise NotFound(f"there is no account '{name}'; see: dispatcher account list")
        return account_of(row)

    async def slow_account(self, account_id: int, retry_after: timedelta) -> None:
        """The provider said: slower. One halving a second, however many calls heard it."""
        for _ in range(_TURNS):
            account = await self.account(account_id)
            pace, until, at = slowed(account, retry_after)
            was = {"was_at": account.throttled_at, "was_until": account.throttled_until}
            if await self.db.fetch_one("accounts.slow_down", id=account_id, pace=pace, until=until, at=at, **was):
                return

    async def stop_account(self, account_id: int, reason: str) -> bool:
        """Stop dialling for all campaigns of the account; True when this call stopped it."""
        account = await self.account(account_id)
        stops = stops_now(account)
        return account.state is AccountState.OPEN and bool(
            await self.db.fetch_one(
                "accounts.stop", id=account_id, reason=reason, stops=stops, probe_after=probe_after(stops)
            )
        )

    async def hold_account(self, account_id: int) -> bool:
        """Stop it at a person's word, until a person resumes it; True when that was new.

        When it returns, no new permit exists.
        """
        return bool(await self.db.fetch_one("accounts.hold", id=account_id, reason=StopReason.OPERATOR, never=NEVER))

    async def reopen_account(self, account_id: int, *, actor: AuditActor = AuditActor.SYSTEM) -> bool:
        """Dial again; True when it was stopped."""
        by_person = actor is AuditActor.OPERATOR
        return bool(
            await self.db.fetch_one(
                "accounts.reopen", id=account_id, by_person=by_person, operator=StopReason.OPERATOR, actor=actor
            )
        )

    async def edit_account(self, account_id: int, changes: Mapping[str, Any]) -> Account:
        """Change what an operator says about an account; campaigns go on with it at once."""
        values = {name: changes.get(name) for name in EDITABLE}
        values["options"] = Jsonb(dict(values["options"])) if values["options"] else None
        audit = {
            "actor": AuditActor.OPERATOR,
            "act": "account.edited",
            "subject": f"account:{account_id}",
            "detail": Jsonb({name: str(value) for name, value in changes.items()}),
        }
        *_, rows = await self.db.message(
            [
                ("accounts.edit", {"id": account_id, **values}),
                ("campaigns.audit", audit),
                ("accounts.by_id", {"id": account_id}),
            ]
        )
        return account_of(rows[0])

    async def record_dedupe_window(self, account_id: int, window: timedelta | None) -> None:
        """What probing showed: for how long a request that comes again is recognised; None when it is not."""

        async def work(tx: Transaction) -> None:
            await tx.fetch("accounts.record_dedupe_window", id=account_id, window=window)
            await write_audit(
                tx, AuditActor.OPERATOR, "account.probed", f"account:{account_id}", {"window": str(window)}
            )

        await self.db.atomically(work)

    async def put_off_probe(self, account: Account) -> bool:
        """As if the probe had failed: ask again later. False for an account that is not to be probed."""
        row = await self.db.fetch_one(
            "accounts.put_off_probe",
            id=account.id,
            probe_after=probe_after(account.stops + 1),
            operator=StopReason.OPERATOR,
        )
        return row is not None

    async def next_slot_in(self, account_id: int, wait: timedelta) -> None:
        """Nothing can be sent for so long: the tick starts no shift until then."""
        await self.db.fetch("accounts.next_slot", id=account_id, wait=wait)

    async def take_shift(self, account_id: int, owner: str, lease: timedelta) -> Shift | None:
        """A free slot of the account, or None when all are taken."""
        row = await self.db.fetch_one("accounts.take_shift", account_id=account_id, owner=owner, lease=lease)
        return Shift(account_id, row["slot"], owner, row["epoch"]) if row else None

    async def leave_shift(self, shift: Shift) -> None:
        await self.db.fetch("accounts.leave_shift", account_id=shift.account_id, slot=shift.slot, owner=shift.owner)

    async def missing_shifts(self) -> dict[int, int]:
        """Accounts with due work: how many more shifts each may have."""
        rows = await self.db.fetch("accounts.missing_shifts", soon=SLOT_IS_NEAR)
        return {row["id"]: row["missing"] for row in rows if row["missing"] > 0}
