"""Control: accounts and campaigns, at a person's word."""

from dispatcher.domain.campaign import Campaign, CampaignState, Policy
from dispatcher.domain.errors import NotAllowed
from dispatcher.ports import Services


async def create(policy: Policy, services: Services, request_id: str | None = None) -> Campaign:
    """A DRAFT on the account that the policy names. Raises NotFound."""
    account = await services.store.account_named(policy.account)
    return await services.store.create_campaign(account.id, policy, request_id)


async def start(campaign_id: int, services: Services) -> Campaign:
    """DRAFT -> RUNNING. Raises NotFound, NotAllowed."""
    return await _run(campaign_id, CampaignState.DRAFT, services)


async def resume(campaign_id: int, services: Services) -> Campaign:
    """PAUSED -> RUNNING. Raises NotFound, NotAllowed."""
    return await _run(campaign_id, CampaignState.PAUSED, services)


async def _run(campaign_id: int, from_: CampaignState, services: Services) -> Campaign:
    state = (await services.store.campaign(campaign_id)).state
    if state in (CampaignState.DRAFT, CampaignState.PAUSED) and state is not from_:
        verb = "start" if state is CampaignState.DRAFT else "resume"
        raise NotAllowed(f"campaign {campaign_id} is {state}; use: dispatcher campaign {verb} {campaign_id}")
    return await services.store.move_campaign(campaign_id, CampaignState.RUNNING, actor="operator")


async def pause(campaign_id: int, services: Services) -> Campaign:
    """RUNNING -> PAUSED: when this returns, no new permit exists. Raises NotFound, NotAllowed."""
    return await services.store.move_campaign(campaign_id, CampaignState.PAUSED, actor="operator", reason="operator")


async def abort(campaign_id: int, services: Services) -> Campaign:
    """To ABORTED: no new permits, waiting rows end as FINISHED/UNDIALED, open attempts are awaited."""
    return await services.store.move_campaign(campaign_id, CampaignState.ABORTED, actor="operator")
