"""Thousands of faults in seconds; and broken protocols, which must be caught."""

import logging
from collections.abc import Iterator

import pytest

from tests.simulation.mutants import MUTANTS, Mutant
from tests.simulation.world import World

SEEDS, MORE_SEEDS = 25, 500
OTHER_SEEDS = range(60)
"""For a mutant whose own seeds do not catch it any more, because histories have changed."""


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """Nobody reads the thousands of warnings of a history."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.parametrize(
    "seed",
    [*range(SEEDS), *(pytest.param(seed, marks=pytest.mark.full) for seed in range(SEEDS, MORE_SEEDS))],
)
def test_no_history_breaks_a_promise(seed: int) -> None:
    world = World(seed)
    assert world.run() == []
    assert world.exchange.ledger


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_broken_protocol_is_caught(mutant: Mutant, monkeypatch: pytest.MonkeyPatch) -> None:
    mutant.break_it(monkeypatch)
    assert any(caught(seed) for seed in (*mutant.seeds, *OTHER_SEEDS)), "this mutant survived"


def caught(seed: int) -> bool:
    try:
        return bool(World(seed).run())
    except AssertionError:
        return True  # the store refused an illegal move


def test_the_same_seed_gives_the_same_history() -> None:
    first, second = World(3), World(3)
    assert first.run() == second.run() == []
    assert [vars(d) for d in first.exchange.ledger] == [vars(d) for d in second.exchange.ledger]
    assert first.store.state_counts() == second.store.state_counts()
