"""A campaign dispatcher: screened, paced, retried, and never twice by a fault."""

from dispatcher.domain.campaign import Campaign, CampaignState, Policy, read_policy
from dispatcher.domain.errors import DispatcherError
from dispatcher.domain.results import Disposition, Outcome, Result
from dispatcher.domain.states import Phase, State

__version__ = "0.1.0"
__all__ = [
    "Campaign",
    "CampaignState",
    "DispatcherError",
    "Disposition",
    "Outcome",
    "Phase",
    "Policy",
    "Result",
    "State",
    "__version__",
    "read_policy",
]
