"""Control: accounts and campaigns, at a person's word."""

import logging

from dispatcher.domain.audit import AuditActor
from dispatcher.domain.campaign import Campaign, CampaignState, Policy
from dispatcher.domain.capability import ContentKind
from dispatcher.domain.errors import NotAllowed, ServerError, UsageError
from dispatcher.domain.tick import CampaignRef
from dispatcher.flow.tick import mark_campaigns
from dispatcher.ports import Services

log = logging.getLogger(__name__)


async def create(policy: Policy, services: Services, request_id: str | None = None) -> Campaign:
    """A DRAFT on the account that the policy names. Raises NotFound, NotAllowed."""
    account = await services.store.account_named(policy.account)
    able = services.providers.capabilities(account)
    if policy.channel not in able.channels:
        raise NotAllowed(f"the provider of account '{account.name}' has no channel '{policy.channel}'")
    if ContentKind.FLOW in able.contents and not (policy.content.flow or account.options.get("flow")):
        raise NotAllowed(f"account '{account.name}' dials flows: name one in [content] flow, or with --option flow=…")
    for kind in ContentKind:
        if getattr(policy.content, kind) and kind not in able.contents:
            raise NotAllowed(f"the provider of account '{account.name}' cannot say [content] {kind}; leave it out")
    campaign = await services.store.create_campaign(account.id, policy, request_id)
    if campaign.policy != policy:
        raise NotAllowed(f"this request id made campaign {campaign.id}, which is another one; choose a new id")
    return campaign


async def start(campaign_id: int, services: Services, request_id: str | None = None) -> Campaign:
    """DRAFT -> RUNNING. Raises NotFound, NotAllowed."""
    return await _run(campaign_id, CampaignState.DRAFT, services, request_id)


async def resume(campaign_id: int, services: Services, request_id: str | None = None) -> Campaign:
    """PAUSED -> RUNNING. Raises NotFound, NotAllowed."""
    return await _run(campaign_id, CampaignState.PAUSED, services, request_id)


async def _run(campaign_id: int, from_: CampaignState, services: Services, request_id: str | None) -> Campaign:
    campaign = await services.store.move_campaign(
        campaign_id, CampaignState.RUNNING, actor=AuditActor.OPERATOR, request_id=request_id, from_=from_
    )
    try:  # what the next tick would do
        await mark_campaigns([CampaignRef(campaign.id, campaign.part, campaign.state)], services)
        await services.broker.start_shift(campaign.account_id)
    except ServerError:
        log.warning("the next tick starts to dial", extra={"campaign_id": campaign_id}, exc_info=True)
    return campaign


async def pause(campaign_id: int, services: Services, request_id: str | None = None) -> Campaign:
    """RUNNING -> PAUSED: when this returns, no new permit exists. Raises NotFound, NotAllowed."""
    return await _move(campaign_id, CampaignState.PAUSED, services, request_id, "operator")


async def abort(campaign_id: int, services: Services, request_id: str | None = None) -> Campaign:
    """To ABORTED: no new permits, waiting rows end as FINISHED/UNDIALED, open attempts are awaited.

    Where the provider can be asked to stop what it accepted, it will be, at the account's pace (see flow.cancel).
    """
    return await _move(campaign_id, CampaignState.ABORTED, services, request_id)


async def purge(campaign_id: int, confirm: str | None, services: Services) -> Campaign:
    """Delete the destinations and attempts of a campaign that is over; its counts, loads and audit are kept.

    `confirm` is its name: there is no way back. Raises NotFound, NotAllowed, UsageError, ServerError.
    """
    campaign = await services.store.campaign(campaign_id)
    if confirm != campaign.policy.name:
        raise UsageError(
            f"a purge cannot be taken back: all destinations and attempts of campaign {campaign_id} "
            f"'{campaign.policy.name}' are deleted. Export it first if you need them, then say its name: "
            f"--confirm '{campaign.policy.name}'"
        )
    await services.store.purge_campaign(campaign, actor=AuditActor.OPERATOR)
    return await services.store.campaign(campaign_id)


async def _move(
    campaign_id: int, to: CampaignState, services: Services, request_id: str | None, reason: str | None = None
) -> Campaign:
    return await services.store.move_campaign(
        campaign_id, to, actor=AuditActor.OPERATOR, reason=reason, request_id=request_id
    )
