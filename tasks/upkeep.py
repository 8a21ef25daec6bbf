"""What must happen although nobody asks. What happens many times a second sends no events: nobody could look on."""

from dispatcher.flow import postback, reconcile, tick
from dispatcher.queues import TaskName
from tasks.app import app, run


@app.task(name=TaskName.TICK, send_events=False)
def tick_once() -> str:
    """Reap, fold, mark, start what is missing."""
    return f"{run(tick.tick)} duties failed"


@app.task(name=TaskName.SETTLE_POSTBACKS, send_events=False)
def settle_postbacks() -> str:
    """Empty the inbox."""
    return f"{run(postback.settle_postbacks)} postbacks"


@app.task(name=TaskName.RECONCILE)
def reconcile_account(account_id: int) -> str:
    """Ask about calls that have waited."""
    return f"{run(lambda services: reconcile.reconcile(account_id, services))} asked about"


@app.task(name=TaskName.PROBE)
def probe_account(account_id: int) -> str:
    """Ask whether a stopped account works again."""
    return "works" if run(lambda services: reconcile.probe(account_id, services)) else "does not work"
