"""The one place where queues and tasks are named."""

from enum import StrEnum


class Queue(StrEnum):
    """Which worker does it."""

    IO = "io"
    """The tick and the inbox: must never wait for a provider."""
    DIAL = "dial"
    ASK = "ask"
    """Lookups and probes: may wait for a provider."""
    LOAD = "load"
    """Loads that services ask for: take as long as their files."""


class TaskName(StrEnum):
    """Every task: noun.verb."""

    TICK = "campaign.tick"
    SHIFT = "account.shift"
    SETTLE_POSTBACKS = "postback.settle"
    RECONCILE = "attempt.reconcile"
    PROBE = "account.probe"
    LOAD = "campaign.load"
    START = "campaign.start"


QUEUE_OF = {
    TaskName.TICK: Queue.IO,
    TaskName.SHIFT: Queue.DIAL,
    TaskName.SETTLE_POSTBACKS: Queue.IO,
    TaskName.RECONCILE: Queue.ASK,
    TaskName.PROBE: Queue.ASK,
    TaskName.LOAD: Queue.LOAD,
    TaskName.START: Queue.IO,
}

HINT_LIVES_S = 30
"""A hint that nobody took in this time is worthless: the next tick gives another. Longer than clocks differ."""
