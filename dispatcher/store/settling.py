"""Settle: situations are read, the domain decides, and one message writes what still holds.

Optimistic concurrency: each decision carries the versions of the rows that it was made on. What has moved meanwhile
is read and decided again.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from itertools import chain
from typing import Any

from psycopg.types.json import Jsonb

from dispatcher.domain.audit import AuditActor
from dispatcher.domain.campaign import CampaignState
from dispatcher.domain.counters import Measure, row_label
from dispatcher.domain.errors import ServerError
from dispatcher.domain.postback import CLOCKS_DIFFER, PostbackMark
from dispatcher.domain.reasons import Reason
from dispatcher.domain.results import AttemptUpdate, CallReport, Channel, Result
from dispatcher.domain.settling import next_step
from dispatcher.domain.states import FINAL, OPEN, Phase, RetryOwner, State
from dispatcher.domain.steps import AttemptContext, Decision, Ignore, KeepOpen, Redial, Requeue, StepKind
from dispatcher.domain.steps import RowValues as RowValues
from dispatcher.store.campaigns import Policies
from dispatcher.store.database import PartitionGone, Row, Step, array
from dispatcher.store.permitting import LOCK_DNC_SHARED
from dispatcher.store.postbacks import mark_step

_TURNS = 8
_KNOWN_PARTS = 3
_ALARMS = frozenset({Reason.IMPOSSIBLE, Reason.CONFLICT})
_MEASURES = {StepKind.REDIAL: Measure.REDIAL, StepKind.REQUEUE: Measure.REQUEUE}


Found = tuple[AttemptContext, Row]


class Settling(Policies):
    """The part of the Store port that is about news."""

    _parts: list[int]
    """Parts that were asked lately: most news are about these."""

    async def settle(
        self,
        updates: Sequence[AttemptUpdate],
        fractions: Sequence[float],
        known: Mapping[str, AttemptContext] | None = None,
        marks: Sequence[PostbackMark] = (),
    ) -> list[Decision]:
        """Everything that was heard becomes steps. Idempotent and free of order. Raises ServerError.

        `known`: situations that were read before; those that have changed since are read again. `marks`: postbacks
        that are over when all of this is written. Of several news about one attempt, each is decided on what the
        one before it left.
        """
        contexts, decided = dict(known or {}), list[Decision]()
        done = set[str]()
        waiting = list(zip(updates, fractions, strict=True))
        for _ in range(_TURNS + len(updates)):
            turn, later = _first_of_each(waiting)
            contexts |= {s.key: s for s in await self._read([key for key in turn if key not in contexts])}
            decisions = [
                next_step(item, contexts[key], fraction) for key, (item, fraction) in turn.items() if key in contexts
            ]
            held = await self._write(decisions, () if later else marks, done)
            decided += [d for d in decisions if d.key in held]
            done |= held
            waiting = [turn[d.key] for d in decisions if d.key not in held] + later
            if not waiting:
                return decided
            contexts = {}
        raise ServerError("news could not be written: their rows were moved again and again; they are written later")

    async def _read(self, keys: Sequence[str]) -> list[AttemptContext]:
        if not keys:
            return []
        asked = _asked(None, keys=keys)
        found = await self._find_open(asked)
        missing = set(keys) - {contexts.key for contexts, _ in found}
        if missing:
            found += await self._find_elsewhere({**asked, "keys": array(sorted(missing))})
        return [contexts for contexts, _ in found]

    async def _find_open(self, asked: Mapping[str, Any]) -> list[Found]:
        """Open attempts in the parts that most news are about."""
        try:
            answers = await self.db.message(_open_in(self._parts, asked))
        except PartitionGone:
            self._parts[:] = [0]
            answers = await self.db.message(_open_in(self._parts, asked))
        return [(await self._context(row), row) for row in chain.from_iterable(answers)]

    async def _find_elsewhere(self, asked: Mapping[str, Any]) -> list[Found]:
        """Closed attempts, and open ones in other parts."""
        parts = [row["part"] for row in await self.db.fetch("settling.parts", **asked)]
        names = ("settling.contexts_open", "settling.contexts_closed")
        steps: list[Step] = [(name, {**asked, "part": part}) for part in parts for name in names]
        answers = await self.db.message(steps) if steps else []
        self._parts[:] = list(dict.fromkeys([*parts, *self._parts]))[:_KNOWN_PARTS]
        return [(await self._context(row), row) for row in chain.from_iterable(answers)]

    async def _context(self, row: Row) -> AttemptContext:
        return AttemptContext(
            key=row["key"],
            part=row["part"],
            destination_id=row["destination_id"],
            campaign_id=row["campaign_id"],
            e164=row["e164"],
            phase=Phase(row["phase"]),
            is_latest=row["is_latest"],
            permit_at=row["permit_at"],
            lease_over=row["lease_over"],
            lookups=row["lookups"],
            result_deadline=row["result_deadline"],
            attempt_result=Result(row["attempt_result"]) if row["attempt_result"] else None,
            state=State(row["state"]),
            retry_owner=RetryOwner(row["retry_owner"]),
            permits=row["permits"],
            dials=row["dials"],
            due_at=row["due_at"],
            first_dialled_at=row["first_dialled_at"],
            last_result=Result(row["last_result"]) if row["last_result"] else None,
            campaign_state=CampaignState(row["campaign_state"]),
            policy=await self.policy(row["campaign_id"], row["policy_version"]),
            on_dnc=row["on_dnc"],
            now=row["now"],
            version=(row["row_version"], row["attempt_version"]),
        )

    async def _write(self, decisions: Sequence[Decision], marks: Sequence[PostbackMark], done: set[str]) -> set[str]:
        """The keys of the decisions that still held; those that change nothing always do. `done`: written before."""
        waits, by_part = [], defaultdict(list)
        held = set()
        for decision in decisions:
            if isinstance(decision.step, Ignore) and not decision.amends:
                held.add(decision.key)
            elif isinstance(decision.step, KeepOpen) and decision.row is None:
                waits.append(decision)
            else:
                by_part[decision.context.part].append(decision)
        writes: list[Step] = [("settling.wait", _columns(waits, _WAIT))] if waits else []
        writes += [
            ("settling.move", {"part": part, **_columns(group, _MOVE)}) for part, group in sorted(by_part.items())
        ]
        steps = [*_locks(by_part, waits), *writes, *_alarms(decisions), *mark_step(marks, done | held)]
        answers = await self.db.message(steps) if steps else []
        for (name, _), rows in zip(steps, answers, strict=True):
            if name in ("settling.wait", "settling.move"):
                held |= set(rows[0]["keys"])
        return held

    async def numbers_of(self, keys: Sequence[str]) -> list[str]:
        """The numbers of these attempts."""
        return [s.e164 for s in await self._read(keys)]

    async def match(self, account_id: int, reports: Sequence[CallReport]) -> list[AttemptContext | None]:
        """The attempt of each sighting, as it stands; its number and channel must agree.

        By our key, by the provider's id of the call, or by its id of the request together with the number.
        """
        found = _fit(reports, await self._find_open(_asked_for(account_id, reports)))
        missing = [i for i, contexts in enumerate(found) if contexts is None]
        if missing:
            others = [reports[i] for i in missing]
            elsewhere = _fit(others, await self._find_elsewhere(_asked_for(account_id, others)))
            for i, contexts in zip(missing, elsewhere, strict=True):
                found[i] = contexts
        return found

    async def match_by_number(self, account_id: int, reports: Sequence[CallReport]) -> list[AttemptContext | None]:
        """The single open attempt with the sighting's number, permitted before the call began: the last resort."""
        asked = [s for s in reports if s.to]
        rows = await self.db.fetch(
            "settling.match_numbers",
            account_id=account_id,
            numbers=[s.to for s in asked],
            channels=[s.channel for s in asked],
            created=[s.created_at for s in asked],
            clocks_differ=CLOCKS_DIFFER,
        )
        by_number = {row["to"]: row["key"] for row in rows}
        once = Counter(s.to for s in asked)
        keys = [by_number.get(s.to) if s.to and once[s.to] == 1 else None for s in reports]
        contexts = {s.key: s for s in await self._read([key for key in keys if key])}
        return [contexts.get(key) if key else None for key in keys]


Heard = tuple[AttemptUpdate, float]


def _first_of_each(waiting: Sequence[Heard]) -> tuple[dict[str, Heard], list[Heard]]:
    """The first news of each attempt, and the others."""
    first: dict[str, Heard] = {}
    later = []
    for heard in waiting:
        if first.setdefault(heard[0].key, heard) is not heard:
            later.append(heard)
    return first, later


def _open_in(parts: Sequence[int], asked: Mapping[str, Any]) -> list[Step]:
    return [("settling.contexts_open", {**asked, "part": part}) for part in parts]


def _asked(
    account_id: int | None,
    *,
    keys: Sequence[str] = (),
    calls: Sequence[str] = (),
    requests: Sequence[str] = (),
    numbers: Sequence[str] = (),
) -> dict[str, Any]:
    """What names attempts: our keys, the provider's ids of calls, or its ids of requests with a number."""
    named = {"keys": keys, "calls": calls, "requests": requests, "numbers": numbers}
    return {"account_id": account_id, **{name: array(values) for name, values in named.items()}}


def _asked_for(account_id: int, reports: Sequence[CallReport]) -> dict[str, Any]:
    return _asked(
        account_id,
        keys=[s.key for s in reports if s.key],
        calls=[c for s in reports if (c := s.outcome.provider_call_id)],
        requests=[s.request_id for s in reports if s.request_id and s.to],
        numbers=[s.to for s in reports if s.request_id and s.to],
    )


def _fit(reports: Sequence[CallReport], found: Sequence[Found]) -> list[AttemptContext | None]:
    by_key = {hit[1]["key"]: hit for hit in found}
    by_call = {hit[1]["call"]: hit for hit in found if hit[1]["call"]}
    by_request = {(hit[1]["request"], hit[1]["e164"]): hit for hit in found if hit[1]["request"]}
    fitting: list[AttemptContext | None] = []
    for s in reports:
        hit = by_key.get(s.key or "") or by_call.get(s.outcome.provider_call_id or "")
        hit = hit or _fitting(by_request.get((s.request_id, s.to)), s)
        fitting.append(hit[0] if hit and _agrees(hit[1], s) else None)
    return fitting


def _agrees(row: Row, report: CallReport) -> bool:
    return report.to in (None, row["e164"]) and report.channel is Channel(row["channel"])


def _fitting(hit: Found | None, report: CallReport) -> Found | None:
    """Found by request and number only: it must not be another call."""
    if hit is None or hit[1]["call"] not in (None, report.outcome.provider_call_id):
        return None
    return hit


def _locks(by_part: Mapping[int, Sequence[Decision]], waits: Sequence[Decision]) -> list[Step]:
    """The lists' lock where a row is to wait again, then rows by id: every message takes them in this order."""
    moves = list(chain.from_iterable(by_part.values()))
    steps: list[Step] = []
    if any(_waits(d) for d in moves):
        steps.append(LOCK_DNC_SHARED)
    for part, group in sorted(by_part.items()):
        ids = [d.context.destination_id for d in group if d.row or d.amends]
        steps.append(("settling.lock_destinations", {"part": part, "ids": array(ids)}))
    if keys := [d.key for d in chain(moves, waits) if d.context.phase in OPEN]:
        steps.append(("settling.lock_open_attempts", {"keys": array(keys)}))
    return steps


def _waits(decision: Decision) -> bool:
    return isinstance(decision.step, Requeue | Redial)


Value = str | int | float | bool | datetime | None
Column = Callable[[Decision, RowValues | None], Value]


def _columns(decisions: Sequence[Decision], columns: Mapping[str, Column]) -> dict[str, str]:
    pairs = [(d, d.row) for d in decisions]
    return {name: array([value(d, row) for d, row in pairs]) for name, value in columns.items()}


def _why(d: Decision, _: RowValues | None) -> str | None:
    return d.step.reason


def _of_row(name: str) -> Column:
    """What the destination holds after the step, if it changes."""
    return lambda _, row: getattr(row, name) if row else None


def _of_wait(name: str) -> Column:
    """When an attempt that stays open is asked about."""
    return lambda d, _: getattr(d.step, name) if isinstance(d.step, KeepOpen) else None


def _was_label(d: Decision, row: RowValues | None) -> str | None:
    return d.context.state if row and row.state is not d.context.state else None


def _label(d: Decision, row: RowValues | None) -> str | None:
    return row_label(row.state, row.result) if row and row.state is not d.context.state else None


_HEARD: Mapping[str, Column] = {
    "key": lambda d, _: d.key,
    "attempt_version": lambda d, _: d.context.version[1],
    "phase": lambda d, _: d.phase,
    "provider_owned": lambda d, _: isinstance(d.step, KeepOpen) and d.step.owner is RetryOwner.PROVIDER,
    "next_lookup_at": _of_wait("next_lookup_at"),
    "result_deadline": _of_wait("result_deadline"),
    "lookups": _of_wait("lookups"),
    "call": lambda d, _: d.outcome.provider_call_id,
    "request": lambda d, _: d.outcome.provider_request_id,
    "raw_state": lambda d, _: d.outcome.raw_state,
    "raw_result": lambda d, _: d.outcome.raw_result,
    "why": _why,
}
_WAIT = _HEARD
"""The columns of settling.wait."""
_MOVE: Mapping[str, Column] = {
    **_HEARD,
    "destination_id": lambda d, _: d.context.destination_id,
    "campaign_id": lambda d, _: d.campaign_id,
    "row_version": lambda d, _: d.context.version[0],
    "was_open": lambda d, _: d.context.phase in OPEN,
    "waits": lambda d, _: _waits(d),
    "campaign_state": lambda d, _: d.context.campaign_state,
    "was_label": _was_label,
    "label": _label,
    "measure": lambda d, _: _MEASURES.get(d.step.kind),
    "state": _of_row("state"),
    "retry_owner": _of_row("retry_owner"),
    "result": _of_row("result"),
    "reason": _of_row("reason"),
    "due_at": _of_row("due_at"),
    "dials": _of_row("dials"),
    "first_dialled_at": _of_row("first_dialled_at"),
    "is_final": lambda _, row: row is not None and row.state in FINAL,
    "moved_by": lambda d, _: d.actor,
    "closes": lambda d, _: d.closes,
    "amends": lambda d, _: d.amends,
    "attempt_result": lambda d, _: d.result,
    "disposition": lambda d, _: d.outcome.disposition,
    "step": lambda d, _: d.step.kind,
    "detail": lambda d, _: d.outcome.why,
    "answered_at": lambda d, _: d.outcome.answered_at,
    "duration_s": lambda d, _: d.outcome.duration_s,
    "cost": lambda d, _: d.outcome.cost,
}
"""The columns of settling.move."""


def _alarms(decisions: Sequence[Decision]) -> list[Step]:
    """News that cannot be: a provider that contradicts itself, or a forger. Kept for a person."""
    return [
        (
            "campaigns.audit",
            {
                "actor": AuditActor.SYSTEM,
                "act": f"news.{d.step.reason.lower()}",
                "subject": f"attempt:{d.key}",
                "detail": Jsonb({"result": d.outcome.result, "phase": d.context.phase}),
            },
        )
        for d in decisions
        if isinstance(d.step, Ignore) and d.step.reason in _ALARMS
    ]
