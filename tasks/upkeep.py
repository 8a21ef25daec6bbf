"""What must happen although nobody asks. What happens many times a second sends no events: nobody could look on.

Each has a soft limit, at which its coroutine is cancelled, and a hard one, at which its process is killed. Both are
safe at any instant: each change is one message to PostgreSQL, which takes its locks, commits and releases them inside
the server, even when the worker is gone. A message is done as a whole or not at all; what was not done is found again
by the next tick, postbacks when their lease of 30 s is over.
"""

from dataclasses import replace

from dispatcher.flow import postback, reconcile, tick
from dispatcher.ports import Services
from dispatcher.queues import TaskName
from tasks.app import app, run

SETTLES_S = 40.0
"""An inbox that is never empty is left to the next hint after this time, well before the soft limit."""


@app.task(name=TaskName.TICK, send_events=False, soft_time_limit=20, time_limit=30)
def tick_once() -> str:
    """Reap, fold, mark, start what is missing."""
    return f"{run(tick.tick)} duties failed"


@app.task(name=TaskName.SETTLE_POSTBACKS, send_events=False, soft_time_limit=60, time_limit=90)
def settle_postbacks() -> str:
    """Empty the inbox."""
    return f"{run(lambda services: postback.settle_postbacks(ending(services, SETTLES_S)))} postbacks"


@app.task(name=TaskName.RECONCILE, soft_time_limit=60, time_limit=90)
def reconcile_account(account_id: int) -> str:
    """Ask about calls that have waited."""
    return f"{run(lambda services: reconcile.reconcile(account_id, services))} asked about"


@app.task(name=TaskName.PROBE, soft_time_limit=30, time_limit=45)
def probe_account(account_id: int) -> str:
    """Ask whether a stopped account works again."""
    return "works" if run(lambda services: reconcile.probe(account_id, services)) else "does not work"


def ending(services: Services, seconds: float) -> Services:
    """The same services, asked to stop after so many seconds."""
    until = services.clock.now() + seconds
    return replace(services, stopping=lambda: services.stopping() or services.clock.now() > until)
