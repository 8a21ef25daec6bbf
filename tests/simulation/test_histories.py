"""Thousands of faults in seconds; and broken protocols, which must be caught."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from dispatcher.domain import permitting, settling
from dispatcher.domain.results import Disposition as D
from dispatcher.domain.states import Phase
from dispatcher.domain.steps import PutBack, Redial
from tests.memory import dialling
from tests.simulation.world import World

SEEDS, MORE_SEEDS = 25, 500


@pytest.mark.parametrize(
    "seed",
    [*range(SEEDS), *(pytest.param(seed, marks=pytest.mark.full) for seed in range(SEEDS, MORE_SEEDS))],
)
def test_no_history_breaks_a_promise(seed: int) -> None:
    world = World(seed)
    assert world.run() == []
    assert world.exchange.ledger


def handler(disposition: D) -> Callable[[Callable[..., Any]], Callable[[pytest.MonkeyPatch], None]]:
    """Replace what the one door does with a disposition."""

    def wrap(broken: Callable[..., Any]) -> Callable[[pytest.MonkeyPatch], None]:
        def apply(patch: pytest.MonkeyPatch) -> None:
            patch.setattr(settling, "_HANDLERS", {**settling._HANDLERS, disposition: broken})

        apply.__name__ = broken.__name__
        return apply

    return wrap


@handler(D.LEASE_OVER)
def reap_what_was_sent(news: Any, at: Any, draw: float) -> Any:
    return settling._decide(news, at, PutBack(at.now, "broken"), Phase.NOT_SENT)


@handler(D.RECONCILE)
def redial_blindly(news: Any, at: Any, draw: float) -> Any:
    return settling._decide(news, at, PutBack(at.now, "broken"), Phase.NOT_SENT)


@handler(D.PROVIDER_RETRY)
def redial_over_the_provider(news: Any, at: Any, draw: float) -> Any:
    return settling._decide(news, at, Redial(at.now, None, "broken"), Phase.RESULT)


def forget_the_list_at_the_permit(patch: pytest.MonkeyPatch) -> None:
    real = permitting.refusal
    patch.setattr(dialling, "refusal", lambda row, gate, terms: real(replace(row, on_dnc=False), gate, terms))


def never_give_up(patch: pytest.MonkeyPatch) -> None:
    handler(D.OVERDUE)(lambda news, at, draw: settling._ignore(news, at, "broken"))(patch)


@pytest.mark.parametrize(
    "broken",
    [
        reap_what_was_sent,
        redial_blindly,
        redial_over_the_provider,
        forget_the_list_at_the_permit,
        never_give_up,
    ],
)
def test_a_broken_protocol_is_caught(
    broken: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    broken(monkeypatch)
    assert any(caught(seed) for seed in range(60)), "this mutant survived"


def caught(seed: int) -> bool:
    try:
        return bool(World(seed).run())
    except AssertionError:
        return True  # the store refused an illegal move


def test_the_same_seed_gives_the_same_history() -> None:
    first, second = World(3), World(3)
    assert first.run() == second.run() == []
    assert [vars(d) for d in first.exchange.ledger] == [vars(d) for d in second.exchange.ledger]
