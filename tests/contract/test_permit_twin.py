"""The permit message and the pure rules, on the same generated facts: what one does, the other says."""

from collections import Counter
from collections.abc import Mapping
from datetime import datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dispatcher.domain.campaign import Campaign
from dispatcher.domain.permitting import Hold, Permits, capacity_of, held_by, may_dial, refusal
from dispatcher.store import PostgresStore
from tests.contract.twin import CAMPAIGN_FULL, Case, Tables, cases, utc_now
from tests.factories import ask_for, make_campaign, new_keys

_COLUMNS = "id, state, result, reason, permits, dials, fence, first_dialled_at, due_at"
Rows = Mapping[int, Mapping[str, Any]]


async def read(store: PostgresStore) -> tuple[Rows, dict[str, int]]:
    """Rows by id, and which row each open attempt is of."""
    async with store.db.transaction() as tx:
        rows = await (await tx.connection.execute(f"SELECT {_COLUMNS} FROM destination".encode())).fetchall()
        open_ = await (await tx.connection.execute("SELECT key, destination_id FROM open_attempt")).fetchall()
    return {row["id"]: row for row in rows}, {o["key"]: o["destination_id"] for o in open_}


def check_picked(case: Case, picked: set[int], now: datetime) -> None:
    """As many as there is room for, and of each state those that are due first."""
    takeable = [i for i, fact in enumerate(case.rows, 1) if fact.is_takeable]
    assert len(picked) == min(case.n, capacity_of(case.gate(now), case.terms(now)), len(takeable))
    for state in ("READY", "CALLBACK"):
        due = [i for i in takeable if case.rows[i - 1].state == state]
        taken = picked & set(due)
        assert taken == set(due[: len(taken)])


def check_row(case: Case, i: int, before: Rows, after: Rows, granted: set[int], now: datetime) -> None:
    fact, was, row = case.rows[i - 1], before[i], after[i]
    gate, terms = case.gate(now), case.terms(now)
    possible = [refusal(fact.candidate(reached, now), gate, terms) for reached in fact.reached]
    if i in granted:
        assert set(possible) == {None}
        assert all(may_dial(fact.candidate(r, now), gate, terms) is None for r in fact.reached)
        assert (row["state"], row["reason"], row["result"]) == ("SELECTED", None, was["result"])
        counts = [was[name] + 1 for name in ("permits", "dials", "fence")]
        assert [row["permits"], row["dials"], row["fence"]] == counts
        assert was["first_dialled_at"] in (None, row["first_dialled_at"])
        assert row["first_dialled_at"] is not None
    else:
        ends = [(f.state, f.result, f.reason) for f in possible if f]
        assert (row["state"], row["result"], row["reason"]) in ends
        assert [row[name] for name in ("permits", "dials", "fence")] == [fact.permits, fact.dials, was["fence"]]


async def the_campaign(store: PostgresStore) -> Campaign:
    """One for all examples of a test, with a few versions of its policy."""
    if campaigns := await store.campaigns():
        return campaigns[0]
    campaign = await make_campaign(store)
    copy = (
        "INSERT INTO campaign_policy SELECT campaign_id, n, body, created_at FROM campaign_policy"
        " CROSS JOIN generate_series(2, 3) AS n"
    )
    async with store.db.transaction() as tx:
        await tx.connection.execute(copy.encode())
    return campaign


async def compare(store: PostgresStore, case: Case) -> Permits:
    """Run the message on the facts, and hold what it did against the rules."""
    campaign = await the_campaign(store)
    now = utc_now()
    shift = await Tables(store, campaign).write(case, now)
    before, open_before = await read(store)
    terms, keys = case.terms(now), tuple(new_keys(case.n))
    permits = await store.permit(ask_for(campaign, shift, case.n, part=campaign.part, terms=terms, keys=keys))
    after, open_after = await read(store)

    assert permits.held is held_by(case.gate(now), case.terms(now))
    if permits.held:
        assert (permits.granted, permits.refused) == ((), 0)
        assert (after, open_after) == (before, open_before)
        return permits
    picked = {i for i in before if after[i] != before[i]}
    granted = {row.destination_id for row in permits.granted}
    check_picked(case, picked, now)
    assert granted <= picked
    assert permits.refused == len(picked - granted)
    opened = {key: i for key, i in open_after.items() if key not in open_before}
    assert opened == {row.key: row.destination_id for row in permits.granted}
    for i in picked:
        check_row(case, i, before, after, granted, now)
    assert permits.due_left == sum(fact.is_takeable for fact in case.rows) - len(picked)
    return permits


@settings(max_examples=150)
@given(cases())
async def test_the_message_grants_and_refuses_what_the_rules_say(postgres: PostgresStore, case: Case) -> None:
    assert (await compare(postgres, case)).held is None


@pytest.mark.parametrize("hold", list(Hold))
@settings(max_examples=20)
@given(st.data())
async def test_each_hold_keeps_every_row_as_it_is(postgres: PostgresStore, hold: Hold, data: st.DataObject) -> None:
    assert (await compare(postgres, data.draw(cases([hold])))).held is hold


@settings(max_examples=20)
@given(cases(**CAMPAIGN_FULL))
async def test_the_cap_of_the_campaign_holds_as_that_of_the_account_does(postgres: PostgresStore, case: Case) -> None:
    assert (await compare(postgres, case)).held is Hold.IN_FLIGHT_FULL


@settings(max_examples=60)
@given(st.data(), st.sets(st.sampled_from(Hold), min_size=2))
async def test_of_several_holds_both_name_the_same(
    postgres: PostgresStore, data: st.DataObject, holds: set[Hold]
) -> None:
    first = next(hold for hold in Hold if hold in holds)
    assert (await compare(postgres, data.draw(cases(holds)))).held is first


def test_the_cases_meet_every_refusal() -> None:
    """A differential test says nothing about what is never drawn."""
    reasons: Counter[str | None] = Counter()

    @settings(derandomize=True, max_examples=100, database=None)
    @given(cases())
    def draw(case: Case) -> None:
        now = utc_now()
        for fact in case.rows:
            finish = refusal(fact.candidate(fact.reached[0], now), case.gate(now), case.terms(now))
            reasons[finish.reason if finish else None] += 1

    draw()
    assert set(reasons) == {None, "DNC_AT_PERMIT", "REACHED_BEFORE", "PUT_BACK_LIMIT", "MAX_DIALS", "DEADLINE"}
    assert min(reasons.values()) >= 20
