"""Where a destination is, where an attempt is, and which moves exist.

The states are CallFire's words (seed 000). The moves T1-T19 are the only ones: the database's trigger holds
the same table (a test compares the two), so an impossible history cannot be written by anybody.
"""

from enum import StrEnum


class State(StrEnum):
    """Where a destination is."""

    READY = "READY"
    """May be dialled when due; nothing has rung yet. Left by the permit, a do-not-call add or an abort."""
    SELECTED = "SELECTED"
    """Holds exactly one open attempt. Left only by news about that attempt, or by its expiry."""
    CALLBACK = "CALLBACK"
    """Has rung and will be tried again: by us when due, or by the provider (then its attempt stays open)."""
    FINISHED = "FINISHED"
    """Final: has a result."""
    DNC = "DNC"
    """Final: on a do-not-call list, ours or the provider's."""
    DUP = "DUP"
    """Final: the campaign has this number already."""
    INVALID = "INVALID"
    """Final: no number that we may dial; the reason says why."""
    TIMEOUT = "TIMEOUT"
    """Final, but a late result still amends it: dialled perhaps, result never learnt. Never dialled again."""


FINAL = frozenset({State.FINISHED, State.DNC, State.DUP, State.INVALID, State.TIMEOUT})
WAITING = frozenset({State.READY, State.CALLBACK})


class Phase(StrEnum):
    """Where an attempt is."""

    SENDING = "SENDING"
    """Has the permit: its request may be on the wire."""
    UNKNOWN = "UNKNOWN"
    """Sent perhaps: the answer was lost. Never sent again."""
    ACCEPTED = "ACCEPTED"
    """The provider has it and said so."""
    RESULT = "RESULT"
    """Closed: the provider told the result."""
    REJECTED = "REJECTED"
    """Closed: the provider refused it and rang nobody."""
    NOT_SENT = "NOT_SENT"
    """Closed: not a byte left."""
    ABANDONED = "ABANDONED"
    """Closed: no result in time; a late one is still recorded."""


OPEN = frozenset({Phase.SENDING, Phase.UNKNOWN, Phase.ACCEPTED})


class RetryOwner(StrEnum):
    """Who dials a CALLBACK again. Never both."""

    DISPATCHER = "US"
    PROVIDER = "PROVIDER"


class Actor(StrEnum):
    """Who moved a destination."""

    PERMIT = "permit"
    SENDER = "sender"
    REAPER = "reaper"
    RESULT = "result"
    RESOLVER = "resolver"
    SCREEN = "screen"
    ABORT = "abort"


LOADER = "loader"
"""Stands for an actor in rows that nobody has moved since they were loaded."""


def _moves() -> frozenset[tuple[State, State, Actor]]:
    s, a = State, Actor
    table: list[tuple[tuple[State, ...], tuple[State, ...], tuple[Actor, ...]]] = [
        # T5, T8: due, ours, and the person has no other open attempt; or refused at the permit
        ((s.READY, s.CALLBACK), (s.SELECTED, s.DNC, s.FINISHED), (a.PERMIT,)),
        # T6, T11, T12: put back because nothing rang, or to be dialled again
        # T9, T10: refused by the provider, final news
        (
            (s.SELECTED,),
            (s.READY, s.CALLBACK, s.DNC, s.INVALID, s.FINISHED),
            (a.SENDER, a.RESULT),
        ),
        # T13: the provider's own retry ended; or a late final about the last attempt, not yet redialled.
        # READY: the provider refused an attempt and then told its result after all
        ((s.CALLBACK, s.READY), (s.FINISHED, s.INVALID, s.DNC), (a.RESULT,)),
        # T14: no news in time
        ((s.SELECTED, s.CALLBACK), (s.TIMEOUT,), (a.RESOLVER,)),
        # T15: late news amends, it never dials
        ((s.TIMEOUT,), (s.FINISHED, s.INVALID, s.DNC), (a.RESULT,)),
        # T16, T17
        ((s.READY, s.CALLBACK), (s.DNC,), (a.SCREEN,)),
        ((s.READY, s.CALLBACK), (s.FINISHED,), (a.ABORT,)),
    ]
    return frozenset((f, t, who) for fs, ts, ws in table for f in fs for t in ts for who in ws)


LEGAL_MOVES = _moves()
"""Every (from, to, actor) that changes a destination's state; T12 and T19 keep or follow these states."""
