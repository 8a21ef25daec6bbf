"""Dialling: one message a shift, never one a destination."""

from dispatcher.flow.dial import run_shift
from dispatcher.queues import TaskName
from tasks.app import app, run


@app.task(name=TaskName.SHIFT, soft_time_limit=45, time_limit=60)
def shift(account_id: int) -> str:
    """Dial for an account until the shift is over; the summary is for flower."""
    return str(run(lambda services: run_shift(account_id, services)))
