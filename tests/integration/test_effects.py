"""What a provider says about an account holds for all its campaigns at once, costs nobody an attempt, and passes."""

from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pytest

from dispatcher.bootstrap import Urls
from dispatcher.domain.account import AccountState
from dispatcher.domain.campaign import Campaign
from tests.acceptance.harness import fictional
from tests.inprocess import SECRET, journey

pytestmark = pytest.mark.timeout(300)


@dataclass(frozen=True)
class Effect:
    """What is said, by whom; and what becomes of the account."""

    name: str
    provider: str
    path: str = ""
    options: dict[str, str] = field(default_factory=dict)
    digits: int = 94
    scenario: str = ""
    secret: str = SECRET
    stops: str | None = None
    """The reason of the stop; None: the account is only slowed."""


def said(word: str) -> str:
    return f'[[number]]\ndigits = "94"\nword = "{word}"\n'


FLOW = {"flow": "AbCd1234", "pull_url": "{address}/kairos-apis/pull"}
OLD = {"api": "1.1"}
REST = "/api/1.1/rest"
EFFECTS = (
    Effect("429 v2", "callfire", "/v2"),
    Effect("429 1.1", "callfire", REST, OLD),
    Effect("-105", "fortytwo"),
    Effect("MAX_CAPACITY_REACHED", "phonon", options=FLOW),
    Effect("credit v2", "callfire", "/v2", digits=96, stops="INSUFFICIENT_CREDIT"),
    Effect("credit 1.1", "callfire", REST, OLD, digits=96, stops="INSUFFICIENT_CREDIT"),
    Effect("-101 funds", "fortytwo", digits=96, stops="INSUFFICIENT_FUNDS"),
    Effect("212", "phonon", options=FLOW, digits=96, stops="INSUFFICIENT_BALANCE"),
    Effect(
        "flow balance", "phonon", "/bulk", FLOW, scenario=said("INSUFFICIENT_BALANCE"), stops="INSUFFICIENT_BALANCE"
    ),
    Effect(
        "flow expired",
        "phonon",
        options=FLOW,
        scenario=said("ACCOUNT_VALIDITY_EXPIRED"),
        stops="ACCOUNT_VALIDITY_EXPIRED",
    ),
    Effect("401 v2", "callfire", "/v2", secret="wrong:wrong", stops="HTTP 401"),
    Effect("401 1.1", "callfire", REST, OLD, secret="wrong:wrong", stops="HTTP 401"),
    Effect("-50", "fortytwo", secret="wrong", stops="CODE -50"),
    Effect("security-id", "phonon", options=FLOW, secret="wrong", stops="INVALID_SECURITY_ID"),
)


async def test_an_account_is_slowed_or_stopped_for_all_its_campaigns_and_goes_on(urls: Urls, tmp_path: Path) -> None:
    """All effects beside each other, each with an account and a provider of its own."""
    async with AsyncExitStack() as stack:
        trip = await stack.enter_async_context(journey(urls, tmp_path))
        store = trip.services.store
        running = []
        for place, effect in enumerate(EFFECTS):
            played = await stack.enter_async_context(trip.playing(effect.provider, effect.scenario))
            name = "".join(c if c.isalnum() else "-" for c in effect.name.lower()).strip("-")
            account = await trip.account(
                played, effect.provider, name, effect.path, effect.secret, options=effect.options
            )
            plain = fictional(40 * 2 * (place + 1), range(40))[80 * place :]
            (trigger,) = fictional(place + 1, [effect.digits])[place:]
            campaigns = [
                await trip.campaign(account, [trigger, *plain[:3]]),
                await trip.campaign(account, plain[3:7]),
            ]
            running.append((effect, played, account, campaigns))

        async def all_felt_it() -> bool:
            now = [(e, await store.account(a.id)) for e, _, a, _ in running]
            felt.update({e.name: a.reason or "" for e, a in now if a.state is AccountState.STOPPED})
            slowed.update(e.name for e, a in now if a.throttled_at)
            return all(e.name in (felt if e.stops else slowed) for e in EFFECTS)

        async def nobody_was_charged(campaign: Campaign) -> bool:
            return {(r.state, r.dials) for r in (await trip.rows(campaign)).values()} == {("READY", 0)}

        felt: dict[str, str] = {}
        slowed: set[str] = set()
        await trip.until(all_felt_it)
        assert {e.name: e.stops for e in EFFECTS if e.stops} == felt
        for effect, _, account, campaigns in running:
            if effect.secret != SECRET:
                for campaign in campaigns:
                    await trip.until(partial(nobody_was_charged, campaign))  # who was on the way comes back
                    status = await store.status(campaign)
                    assert (effect.stops or "") in (status.blocked_by or "-"), effect.name
                (tmp_path / f"{account.name}.credentials").write_text(SECRET)
        await trip.until_done(*(c for *_, campaigns in running for c in campaigns))
        for effect, played, account, campaigns in running:
            for campaign in campaigns:
                rows = await trip.rows(campaign)
                assert {f"{r.state} {r.result}" for r in rows.values()} == {"FINISHED LA"}, effect.name
                assert {r.dials for r in rows.values()} == {1}, effect.name
            check = await trip.check(played, *campaigns)
            assert (check.is_clean, check.dials) == (True, 8), (effect.name, check)
            assert (await store.account(account.id)).state is AccountState.OPEN, effect.name
