"""Accounts and the shifts that dial for them."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from psycopg.types.json import Jsonb

from dispatcher.domain.account import BY_OPERATOR, Account, AccountState, NewAccount, probe_after, slowed, stops_now
from dispatcher.domain.errors import NotAllowed, NotFound
from dispatcher.store.audit import write_audit
from dispatcher.store.database import Database, Row, Transaction

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
            await write_audit(tx, "operator", "account.added", f"account:{made['id']}", {"name": new.name})
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

        async def work(tx: Transaction) -> None:
            row = await tx.fetch_one("accounts.lock", id=account_id)
            if row is None:
                return
            pace, until, at = slowed(account_of(row), retry_after)
            await tx.fetch("accounts.slow_down", id=account_id, pace=pace, until=until, at=at)

        await self.db.atomically(work)

    async def stop_account(self, account_id: int, reason: str) -> bool:
        """Stop dialling for all campaigns of the account; True when this call stopped it."""

        async def work(tx: Transaction) -> bool:
            row = await tx.fetch_one("accounts.lock", id=account_id)
            if row is None or row["state"] == AccountState.STOPPED:
                return False
            stops = stops_now(account_of(row))
            await tx.fetch("accounts.stop", id=account_id, reason=reason, stops=stops, probe_after=probe_after(stops))
            await write_audit(tx, "system", "account.stopped", f"account:{account_id}", {"reason": reason})
            return True

        return await self.db.atomically(work)

    async def hold_account(self, account_id: int) -> bool:
        """Stop it at a person's word, until a person resumes it; True when that was new.

        The update waits for the permits that hold the account's row: when it returns, no new permit exists.
        """

        async def work(tx: Transaction) -> bool:
            held = await tx.fetch_one("accounts.hold", id=account_id, reason=BY_OPERATOR)
            if held:
                await write_audit(tx, "operator", "account.stopped", f"account:{account_id}", {"reason": BY_OPERATOR})
            return held is not None

        return await self.db.atomically(work)

    async def reopen_account(self, account_id: int, *, actor: str = "system") -> bool:
        """Dial again; True when it was stopped."""

        async def work(tx: Transaction) -> bool:
            by_person = actor == "operator"
            reopened = await tx.fetch_one("accounts.reopen", id=account_id, by_person=by_person, operator=BY_OPERATOR)
            if reopened:
                await write_audit(tx, actor, "account.reopened", f"account:{account_id}", {})
            return reopened is not None

        return await self.db.atomically(work)

    async def edit_account(self, account_id: int, changes: Mapping[str, Any]) -> Account:
        """Change what an operator says about an account; campaigns go on with it at once."""

        async def work(tx: Transaction) -> Account:
            values = {name: changes.get(name) for name in EDITABLE}
            values["options"] = Jsonb(dict(values["options"])) if values["options"] else None
            await tx.fetch("accounts.edit", id=account_id, **values)
            detail = {name: str(value) for name, value in changes.items()}
            await write_audit(tx, "operator", "account.edited", f"account:{account_id}", detail)
            row = await tx.fetch_one("accounts.by_id", id=account_id)
            assert row
            return account_of(row)

        return await self.db.atomically(work)

    async def prove_dedupe(self, account_id: int, window: timedelta | None) -> None:
        """What probing showed: for how long a request that comes again is recognised; None when it is not."""

        async def work(tx: Transaction) -> None:
            await tx.fetch("accounts.prove", id=account_id, window=window)
            await write_audit(tx, "operator", "account.probed", f"account:{account_id}", {"window": str(window)})

        await self.db.atomically(work)

    async def put_off_probe(self, account: Account) -> bool:
        """As if the probe had failed: ask again later. False for an account that is not to be probed."""
        row = await self.db.fetch_one(
            "accounts.put_off_probe",
            id=account.id,
            probe_after=probe_after(account.stops + 1),
            operator=BY_OPERATOR,
        )
        return row is not None

    async def accounts_to_probe(self) -> list[Account]:
        return [account_of(row) for row in await self.db.fetch("accounts.due_probes")]

    async def next_slot_in(self, account_id: int, wait: timedelta) -> None:
        """Nothing can be sent for so long: the tick starts no shift until then."""
        await self.db.fetch("accounts.next_slot", id=account_id, wait=wait)

    async def take_shift(self, account_id: int, owner: str, lease: timedelta) -> int | None:
        """A free slot of the account, or None when all are taken."""
        row = await self.db.fetch_one("accounts.take_shift", account_id=account_id, owner=owner, lease=lease)
        return row["slot"] if row else None

    async def leave_shift(self, account_id: int, slot: int, owner: str) -> None:
        await self.db.fetch("accounts.leave_shift", account_id=account_id, slot=slot, owner=owner)

    async def missing_shifts(self) -> dict[int, int]:
        """Accounts with due work: how many more shifts each may have."""
        return {
            row["id"]: row["missing"] for row in await self.db.fetch("accounts.missing_shifts") if row["missing"] > 0
        }
