"""What other services ask for by name. Durable once a row is written; the same again is harmless."""

from dispatcher.bootstrap import spooled
from dispatcher.domain.errors import DispatcherError
from dispatcher.flow import control
from dispatcher.flow.load import load_spooled
from dispatcher.queues import TaskName
from tasks.app import app, run, settings


# no time limit: a load takes as long as its file, and its lease and heartbeat tell whether it lives
@app.task(name=TaskName.LOAD, throws=(DispatcherError,))
def load(campaign_id: int, file: str) -> str:
    """Load a file below DISPATCHER_SPOOL into a campaign."""
    return str(run(lambda services: load_spooled(campaign_id, file, lambda: spooled(settings, file), services)))


@app.task(name=TaskName.START, throws=(DispatcherError,), soft_time_limit=20, time_limit=30)
def start(campaign_id: int, request_id: str) -> str:
    """Begin to dial; the same request id again changes nothing."""
    campaign = run(lambda services: control.start(campaign_id, services, request_id))
    return f"campaign {campaign.id} is {campaign.state}"
