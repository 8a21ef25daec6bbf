"""Writes what the domain decided: one set-based statement for each kind of step."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

from psycopg.types.json import Jsonb

from dispatcher.domain.results import Result
from dispatcher.domain.settling import Await, Decision, Finish, Ignore, PutBack, Redial
from dispatcher.domain.states import FINAL, OPEN, Phase, RetryOwner, State
from dispatcher.store.database import Row, Transaction

Statement = tuple[str, dict[str, Any]]
_ALARMS = frozenset({"IMPOSSIBLE", "CONFLICT"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Move:
    """A decision, and where the destination and its attempt stood when it was made."""

    decision: Decision
    part: int
    destination_id: int
    campaign_id: int
    was: State
    was_phase: Phase
    charged: int
    permitted: bool

    @classmethod
    def of(cls, row: Row, decision: Decision) -> Self:
        """From a row of `situations` or `applicants`."""
        return cls(
            decision=decision,
            part=row["part"],
            destination_id=row["destination_id"],
            campaign_id=row["campaign_id"],
            was=State(row["state"]),
            was_phase=Phase(row["phase"]),
            charged=row["charged"],
            permitted=row["permit_at"] is not None,
        )

    @property
    def becomes(self) -> tuple[State, Result | None] | None:
        """The destination's next state (and result, when final); None when it stays where it is."""
        match self.decision.step:
            case Finish(state=state, result=result):
                return state, result
            case Redial():
                return State.CALLBACK, None
            case PutBack():
                return (State.CALLBACK if self.charged > self.permitted else State.READY), None
            case Await(owner=RetryOwner.PROVIDER) if self.was is State.SELECTED:
                return State.CALLBACK, None
        return None

    @property
    def amends(self) -> bool:
        """Does a late result change the history of a closed attempt?"""
        step = self.decision.step
        return isinstance(step, Finish) or (isinstance(step, Ignore) and step.why == "RECORDED")


def row_label(state: State, result: Result | None) -> str:
    """How the counters name a row: its state, and its result once it is final."""
    return f"{state} {result}" if state in FINAL and result else str(state)


async def write_moves(tx: Transaction, moves: Sequence[Move]) -> None:
    """All steps of a transaction, in one round trip."""
    statements = [
        *_finish([m for m in moves if isinstance(m.decision.step, Finish)]),
        *_redial([m for m in moves if isinstance(m.decision.step, Redial)]),
        *_put_back([m for m in moves if isinstance(m.decision.step, PutBack)]),
        *_await([m for m in moves if isinstance(m.decision.step, Await)]),
        *_close([m for m in moves if m.was_phase in OPEN and m.decision.phase not in OPEN]),
        *_amend([m for m in moves if m.was_phase not in OPEN and m.amends]),
        *_count(moves),
        *_alarm(moves),
    ]
    if statements:
        await tx.pipeline(statements)


def _places(moves: Sequence[Move]) -> dict[str, Any]:
    return {
        "parts": [m.part for m in moves],
        "ids": [m.destination_id for m in moves],
        "actors": [m.decision.actor for m in moves],
    }


def _steps(moves: Sequence[Move], *names: str) -> list[list[Any]]:
    return [[getattr(m.decision.step, name) for m in moves] for name in names]


def _finish(moves: Sequence[Move]) -> list[Statement]:
    if not moves:
        return []
    states, results, reasons = _steps(moves, "state", "result", "reason")
    return [("dialling.finish", {**_places(moves), "states": states, "results": results, "reasons": reasons})]


def _redial(moves: Sequence[Move]) -> list[Statement]:
    if not moves:
        return []
    due, results, reasons = _steps(moves, "due_at", "result", "reason")
    return [("dialling.redial", {**_places(moves), "due": due, "results": results, "reasons": reasons})]


def _put_back(moves: Sequence[Move]) -> list[Statement]:
    if not moves:
        return []
    due, reasons, crashed = _steps(moves, "due_at", "reason", "crashed")
    counts = {"uncharge": [int(m.permitted) for m in moves], "crash": [int(c) for c in crashed]}
    return [("dialling.put_back", {**_places(moves), "due": due, "reasons": reasons, **counts})]


def _await(moves: Sequence[Move]) -> list[Statement]:
    if not moves:
        return []
    owners, look_at, resolve_by, looks, reasons = _steps(moves, "owner", "look_at", "resolve_by", "looks", "reason")
    outcomes = [m.decision.outcome for m in moves]
    waiting: Statement = (
        "dialling.await_news",
        {
            "keys": [m.decision.key for m in moves],
            "phases": [m.decision.phase for m in moves],
            "provider_owned": [o is RetryOwner.PROVIDER for o in owners],
            "look_at": look_at,
            "resolve_by": resolve_by,
            "looks": looks,
            "calls": [o.provider_call_id for o in outcomes],
            "requests": [o.provider_request_id for o in outcomes],
            "raw_states": [o.raw_state for o in outcomes],
            "raw_results": [o.raw_result for o in outcomes],
            "reasons": reasons,
        },
    )
    handed = [m for m in moves if m.becomes]
    if not handed:
        return [waiting]
    results = [m.decision.outcome.result for m in handed]
    (why,) = _steps(handed, "reason")
    return [waiting, ("dialling.hand_over", {**_places(handed), "results": results, "reasons": why})]


def _history(moves: Sequence[Move]) -> dict[str, Any]:
    decisions = [m.decision for m in moves]
    return {
        "keys": [d.key for d in decisions],
        "results": [d.result for d in decisions],
        "dispositions": [d.outcome.disposition for d in decisions],
        "steps": [type(d.step).__name__ for d in decisions],
        "reasons": [d.step.why if isinstance(d.step, Ignore) else d.step.reason for d in decisions],
        "calls": [d.outcome.provider_call_id for d in decisions],
        "requests": [d.outcome.provider_request_id for d in decisions],
        "raw_states": [d.outcome.raw_state for d in decisions],
        "raw_results": [d.outcome.raw_result for d in decisions],
    }


def _close(moves: Sequence[Move]) -> list[Statement]:
    if not moves:
        return []
    outcomes = [m.decision.outcome for m in moves]
    extra = {
        "phases": [m.decision.phase for m in moves],
        "details": [o.detail for o in outcomes],
        "answered": [o.answered_at for o in outcomes],
        "durations": [o.duration_s for o in outcomes],
        "costs": [o.cost for o in outcomes],
    }
    return [("dialling.close", {**_history(moves), **extra})]


def _amend(moves: Sequence[Move]) -> list[Statement]:
    return [("dialling.amend", {"parts": [m.part for m in moves], **_history(moves)})] if moves else []


def _count(moves: Sequence[Move]) -> list[Statement]:
    deltas: Counter[tuple[int, str, str]] = Counter()
    for move in moves:
        step = move.decision.step
        if isinstance(step, Redial | PutBack):
            deltas[move.campaign_id, type(step).__name__.lower(), step.reason] += 1
        if move.becomes and move.becomes[0] is not move.was:
            deltas[move.campaign_id, "row", row_label(move.was, None)] -= 1
            deltas[move.campaign_id, "row", row_label(*move.becomes)] += 1
    if not deltas:
        return []
    columns = {
        "campaigns": [campaign for campaign, _, _ in deltas],
        "measures": [measure for _, measure, _ in deltas],
        "labels": [label for _, _, label in deltas],
        "ns": list(deltas.values()),
    }
    return [("dialling.count", columns)]


def _alarm(moves: Sequence[Move]) -> list[Statement]:
    """News that cannot be: a provider that contradicts itself, or a forger. Kept for a person."""
    return [
        (
            "campaigns.audit",
            {
                "actor": "system",
                "act": f"news.{m.decision.step.why.lower()}",
                "subject": f"attempt:{m.decision.key}",
                "detail": Jsonb({"result": m.decision.outcome.result, "phase": m.was_phase}),
            },
        )
        for m in moves
        if isinstance(m.decision.step, Ignore) and m.decision.step.why in _ALARMS
    ]
