"""The duties of the tick do not depend on each other."""

import asyncio
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from dispatcher.domain.campaign import CampaignState
from dispatcher.domain.errors import ServerError
from dispatcher.domain.tick import CampaignRef, Upkeep
from dispatcher.flow import tick as ticking
from dispatcher.flow.tick import DUTIES, tick
from tests.unit.flow.virtual import play, services

FOUND = Upkeep(
    moved=(CampaignRef(1, 0, CampaignState.RUNNING), CampaignRef(2, 0, CampaignState.ABORTED)),
    expired=("0000000000001",),
    has_dead_loads=True,
    has_ended_pages=True,
    oldest_body_age=timedelta(days=91),
    postbacks_wait=True,
    accounts_to_ask=(5,),
    accounts_to_probe=(6,),
    measured={7: datetime(2026, 1, 1, tzinfo=UTC)},
)
CALLS: dict[str, Any] = {
    "settle": [],
    "due_heads": [],
    "mark_due": None,
    "missing_shifts": {5: 2},
    "start_shift": None,
    "settle_postbacks": None,
    "reconcile": None,
    "probe": None,
    "abort_waiting": 0,
    "fail_dead_loads": 0,
    "dnc_tidy": 0,
    "empty_postbacks": 0,
    "progress": [],
    "publish_progress": None,
}
"""Everything that the duties ask of the store and the broker when there is all of it to do."""


class World:
    """A store and a broker that note what they are asked, and fail as told."""

    def __init__(self, failing: str = "", error: Exception | None = None) -> None:
        self.failing, self.error = failing, error or ServerError("away")
        self.asked: list[str] = []

    def __getattr__(self, name: str) -> Callable[..., Any]:
        answer = FOUND if name == "upkeep" else CALLS[name]

        async def call(*args: Any, **kwargs: Any) -> Any:
            self.asked.append(name)
            await asyncio.sleep(0.01)
            if name == self.failing:
                raise self.error
            return answer

        return call

    def tick(self) -> int:
        return play(tick(services(store=self, broker=self, bodies_kept=timedelta(days=90))))


def test_everything_that_was_found_is_done() -> None:
    world = World()
    assert world.tick() == 0
    assert set(world.asked) == {"upkeep", *CALLS}
    assert world.asked.count("start_shift") == 2


OF_ONE_DUTY = {
    "due_heads": {"mark_due"},
    "missing_shifts": {"start_shift"},
    "settle_postbacks": {"reconcile", "probe"},
    "reconcile": {"probe"},
    "progress": {"publish_progress"},
}


@pytest.mark.parametrize("failing", sorted(CALLS))
def test_a_duty_that_fails_does_not_stop_the_others(failing: str) -> None:
    world = World(failing)
    assert world.tick() == 1
    assert set(CALLS) - set(world.asked) == OF_ONE_DUTY.get(failing, set())


@pytest.mark.parametrize("failing", sorted(set(CALLS) - {"settle"}))
def test_a_fault_of_ours_in_a_duty_does_not_stop_the_others(failing: str) -> None:
    world = World(failing, RuntimeError("a fault of ours"))
    assert world.tick() == 1
    assert set(CALLS) - set(world.asked) == OF_ONE_DUTY.get(failing, set())


def test_news_of_the_reaper_that_cannot_be_written_do_not_stop_the_others() -> None:
    world = World("settle", RuntimeError("a fault of ours"))
    assert world.tick() == 0
    assert set(world.asked) == {"upkeep", *CALLS}


def test_when_looking_fails_what_needs_no_looking_is_done() -> None:
    world = World("upkeep")
    assert world.tick() == 0
    assert {"missing_shifts", "start_shift"} <= set(world.asked)
    assert "abort_waiting" not in world.asked


def test_every_duty_fails_and_each_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    tried = []

    async def fails(found: Upkeep, services: Any) -> None:
        tried.append(found)
        raise ServerError("away")

    monkeypatch.setattr(ticking, "DUTIES", (fails,) * len(DUTIES))
    assert World().tick() == len(DUTIES)
    assert tried == [FOUND] * len(DUTIES)


@pytest.mark.parametrize(("campaigns", "batches"), [(1, 5), (2, 2), (9, 1)])
def test_a_large_campaign_is_aborted_in_several_batches(
    monkeypatch: pytest.MonkeyPatch, campaigns: int, batches: int
) -> None:
    aborted = tuple(CampaignRef(i, 0, CampaignState.ABORTED) for i in range(campaigns))
    monkeypatch.setattr(sys.modules[__name__], "FOUND", Upkeep(moved=aborted))
    monkeypatch.setitem(CALLS, "abort_waiting", ticking.ABORT_BATCH)
    world = World()
    assert world.tick() == 0
    assert world.asked.count("abort_waiting") == campaigns * batches
