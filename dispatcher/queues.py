"""The one place where queues and tasks are named."""

from enum import StrEnum


class Queue(StrEnum):
    """Which worker does it."""

    IO = "io"
    DIAL = "dial"


class TaskName(StrEnum):
    """Every task: noun.verb."""

    TICK = "campaign.tick"
    SHIFT = "account.shift"
    SETTLE_POSTBACKS = "postback.settle"
    RECONCILE = "attempt.reconcile"


QUEUE_OF = {
    TaskName.TICK: Queue.IO,
    TaskName.SHIFT: Queue.DIAL,
    TaskName.SETTLE_POSTBACKS: Queue.IO,
    TaskName.RECONCILE: Queue.IO,
}

HINT_LIVES_S = 5
"""A hint that nobody took in this time is worthless: the next tick gives another."""
