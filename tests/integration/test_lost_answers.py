"""Answers that are lost: after the epoch was raised, what is there is all that will ever be there."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from typing import TypeVar

import psycopg
import pytest

from dispatcher.domain.attempt import Shift
from dispatcher.domain.campaign import Campaign
from dispatcher.domain.errors import DispatcherError, Refused, ServerError
from dispatcher.domain.permitting import Permits
from dispatcher.domain.results import Disposition as D
from dispatcher.domain.results import Result, UpdateSource
from dispatcher.store import PostgresStore
from dispatcher.store.permitting import DNC_LOCK
from tests.conftest import opened
from tests.factories import LEASE, apply, ask_for, make_campaign, number, permit, states, update
from tests.integration.proxy import Proxy, Rival, Where, proxy_to, rival_at

N = 20
T = TypeVar("T")


@dataclass
class Wire:
    """A store behind a proxy, and a shift of it; a second store and a rival that are not behind it."""

    store: PostgresStore
    direct: PostgresStore
    proxy: Proxy
    rival: Rival
    campaign: Campaign
    shift: Shift
    old: set[int]
    """The server's processes behind the proxy, before anything was cut."""

    def ask(self) -> tuple[tuple[str, ...], asyncio.Task[Permits]]:
        """The keys of a permit that is on its way."""
        ask = ask_for(self.campaign, self.shift, N)
        return ask.keys, asyncio.create_task(self.store.permit(ask))

    async def truth(self, keys: tuple[str, ...]) -> list[str]:
        """What a worker does after a lost answer: nothing changes any more after that."""
        self.proxy.where = None
        raised = await trying(lambda: self.store.void_permits(self.shift))
        assert raised
        assert raised.epoch == self.shift.epoch + 1
        found = sorted(await self.store.existing(keys))
        await self.rival.until_gone(self.old)
        assert sorted(await self.direct.existing(keys)) == found
        assert await states(self.direct, self.campaign) == ({"SELECTED": N} if found else {"READY": N})
        assert await self.direct.verify() == []
        return found


async def trying(work: Callable[[], Awaitable[T]]) -> T:
    """As a worker does: again, until the server is there."""
    async with asyncio.timeout(8):
        while True:
            with suppress(ServerError):
                return await work()
            await asyncio.sleep(0.1)


@pytest.fixture
async def wire(database_url: str) -> AsyncIterator[Wire]:
    async with AsyncExitStack() as stack:
        direct = await stack.enter_async_context(opened(database_url))
        rival = await stack.enter_async_context(rival_at(database_url))
        campaign = await make_campaign(direct, [number(i) for i in range(N)])
        shift = await direct.take_shift(campaign.account_id, "w", LEASE)
        assert shift
        known = await rival.backends()
        proxy, url = await stack.enter_async_context(proxy_to(database_url))
        store = await stack.enter_async_context(opened(url))
        yield Wire(store, direct, proxy, rival, campaign, shift, await rival.backends() - known)


class TestPermit:
    @pytest.mark.parametrize(
        ("where", "comes"),
        [(Where.BEFORE, 0), (Where.INSIDE, 0), (Where.SENT, N), (Where.UNREADY, N)],
    )
    async def test_whose_answer_is_lost_raises_and_the_truth_can_be_had(
        self, wire: Wire, where: Where, comes: int
    ) -> None:
        wire.proxy.where = where
        keys, asked = wire.ask()
        with pytest.raises(ServerError):
            await asked
        assert len(await wire.truth(keys)) == comes

    async def test_that_waited_for_the_account_is_seen_by_whoever_raises_the_epoch(self, wire: Wire) -> None:
        await wire.rival.hold_account(wire.campaign.account_id)
        keys, asked = wire.ask()
        await wire.rival.until_waiting(1)
        wire.proxy.cut()
        with pytest.raises(ServerError):
            await asked
        assert await wire.direct.existing(keys) == []  # this says nothing yet
        truth = asyncio.create_task(wire.truth(keys))
        await wire.rival.until_waiting(2)
        await wire.rival.rollback()
        assert await truth == sorted(keys)

    async def test_that_comes_after_the_epoch_was_raised_is_void(self, wire: Wire) -> None:
        await wire.rival.hold("SELECT pg_advisory_xact_lock(%s)", DNC_LOCK)
        keys, asked = wire.ask()
        await wire.rival.until_waiting(1)
        wire.proxy.cut()
        with pytest.raises(ServerError):
            await asked
        raised = await trying(lambda: wire.store.void_permits(wire.shift))
        assert raised
        assert await wire.store.existing(keys) == []
        await wire.rival.rollback()
        await wire.rival.until_gone(wire.old)
        assert await wire.store.existing(keys) == []
        assert await states(wire.direct, wire.campaign) == {"READY": N}
        granted = await wire.store.permit(ask_for(wire.campaign, raised, N))
        assert len(granted.granted) == N

    async def test_of_a_sender_that_stops_between_two_writes_locks_nothing(self, wire: Wire) -> None:
        wire.proxy.where = Where.STALL
        keys, asked = wire.ask()
        await wire.proxy.happened.wait()
        elsewhere = await wire.direct.take_shift(wire.campaign.account_id, "v", LEASE)
        assert elsewhere
        ask = ask_for(wire.campaign, elsewhere, N)
        granted = await asyncio.wait_for(wire.direct.permit(ask), 2)
        assert len(granted.granted) == N
        wire.proxy.cut()
        with pytest.raises(ServerError):
            await asked
        assert await wire.direct.existing(keys) == []


class TestSettle:
    @pytest.mark.parametrize("where", [Where.BEFORE, Where.INSIDE, Where.SENT, Where.UNREADY])
    async def test_is_written_once_when_it_is_repeated(self, wire: Wire, where: Where) -> None:
        keys, asked = wire.ask()
        rows = (await asked).granted
        heard = [update(row.key, D.FINAL_SUCCESS, Result.LA) for row in rows]
        known = {row.key: row.context(wire.campaign.policy, row.permit_at) for row in rows}
        wire.proxy.where = where
        with pytest.raises(ServerError):
            await wire.store.settle(heard, [0.5] * N, known)
        wire.proxy.where = None
        decisions = await trying(lambda: wire.store.settle(heard, [0.5] * N, known))
        assert sorted(d.key for d in decisions) == sorted(keys)
        await wire.rival.until_gone(wire.old)
        assert await states(wire.direct, wire.campaign) == {"FINISHED LA": N}
        assert await wire.direct.verify() == []

    async def test_of_what_was_permitted_and_lost_puts_it_back_without_a_charge(self, wire: Wire) -> None:
        wire.proxy.where = Where.SENT
        keys, asked = wire.ask()
        with pytest.raises(ServerError):
            await asked
        found = await wire.truth(keys)
        steps = await apply(wire.store, *[update(key, D.NOT_SENT, source=UpdateSource.SUBMIT) for key in found])
        assert steps == ["PutBack"] * N
        assert await wire.rival.ask("SELECT DISTINCT dials, permits, state FROM destination") == [(0, 1, "READY")]
        assert await wire.direct.verify() == []


class TestCommit:
    async def test_of_a_message_that_answers_rollback_raises(self, wire: Wire) -> None:
        wire.proxy.spoils_commit = True
        keys, asked = wire.ask()
        with pytest.raises(ServerError, match="rolled a message back"):
            await asked
        assert await wire.direct.existing(keys) == []
        assert await states(wire.direct, wire.campaign) == {"READY": N}

    async def test_that_a_deferred_constraint_refuses_changes_nothing(self, wire: Wire) -> None:
        await refuse_at_commit(wire.rival)
        keys, asked = wire.ask()
        with pytest.raises(DispatcherError) as caught:
            await asked
        assert isinstance(caught.value, Refused | ServerError)
        assert await wire.direct.existing(keys) == []
        assert await states(wire.direct, wire.campaign) == {"READY": N}

    async def test_of_a_transaction_that_has_failed_raises(self, postgres: PostgresStore) -> None:
        @asynccontextmanager
        async def failed() -> AsyncIterator[None]:
            async with postgres.db.transaction() as tx:
                with suppress(psycopg.Error):
                    await tx.connection.execute("SELECT 1 / 0")
                yield

        with pytest.raises(ServerError, match="rolled a transaction back"):
            async with failed():
                pass

    async def test_permits_go_on_over_a_new_connection(self, wire: Wire) -> None:
        wire.proxy.cut()
        await wire.rival.until_gone(wire.old)
        await wire.direct.leave_shift(wire.shift)
        granted = await trying(lambda: permit(wire.store, wire.campaign, N))
        assert len(granted.granted) == N


async def refuse_at_commit(rival: Rival) -> None:
    """A trigger that raises when a transaction with an open attempt wants to commit."""
    await rival.do(
        "CREATE FUNCTION never() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        " RAISE EXCEPTION 'never' USING ERRCODE = 'check_violation'; END $$"
    )
    await rival.do(
        "CREATE CONSTRAINT TRIGGER never AFTER INSERT ON open_attempt DEFERRABLE INITIALLY DEFERRED"
        " FOR EACH ROW EXECUTE FUNCTION never()"
    )
