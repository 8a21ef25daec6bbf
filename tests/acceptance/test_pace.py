"""The provider's limit is kept over two workers in every second, at slow and at fast rates."""

import logging
from pathlib import Path

import pytest

from dispatcher.bootstrap import Urls
from dispatcher.cli.accounts import subscribe_account
from dispatcher.domain.account import NewAccount
from dispatcher.domain.ledger import worst_second
from tests.acceptance.harness import answered, installation

log = logging.getLogger(__name__)
pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(300)]


async def test_half_a_call_and_fifty_calls_a_second(urls: Urls, tmp_path: Path) -> None:
    *fast, a, b, c, d, e, f = answered(506)
    slow = [a, b, c, d, e, f]
    async with installation(urls, tmp_path, cps=50) as up:
        account = await up.services.store.account_named("simulator")
        slow_account = await up.services.store.add_account(
            NewAccount(
                name="slow",
                provider="callfire",
                base_url=account.base_url,
                credentials=account.credentials,
                cps=0.5,
            )
        )
        await subscribe_account(up.services, up.settings, slow_account)
        one = await up.campaign(fast, account="simulator")
        two = await up.campaign(slow, account="slow", timeouts={"accepted": "12s"})
        await up.until_done(one)
        await up.until_done(two)
        lines = up.ledger()
        quick = [line.at for line in lines if line.number not in slow]
        sluggish = [line.at for line in lines if line.number in slow]
        log.info("worst second: %d of 50, %d of 0.5", worst_second(quick), worst_second(sluggish))
        assert len(sluggish) == len(slow)
        assert worst_second(quick) <= 51
        assert worst_second(sluggish) <= 1
        assert await up.services.store.verify() == []
        assert (await up.check(one, two)).is_clean
        workers = [name for name in ("worker-dial-00", "worker-dial-01") if "account.shift" in up.log(name)]
        assert len(workers) == 2, "both workers dialled"
