"""Another service, which knows only the README: it enqueues by HTTP and by task name, twice, and no number leaks."""

import asyncio
import json
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
from redis.asyncio import Redis

from config.celery import broker_url
from dispatcher.bootstrap import Urls
from dispatcher.domain.ledger import worst_second
from tests.acceptance.harness import Installation, answered, installation
from tests.factories import FILE

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(180)]
CANARY = "5550142"
"""Of every number here: found in no message, no log, no event."""

SENDER = """
import sys
from celery import Celery
app = Celery(broker=sys.argv[1])
campaign = int(sys.argv[2])
app.send_task("campaign.load", [campaign, "today.csv"], queue="load")
"""
STARTER = SENDER.replace(
    '"campaign.load", [campaign, "today.csv"], queue="load"', '"campaign.start", [campaign, "s-1"], queue="io"'
)


def post(up: Installation, key: str, path: str, document: object, idempotency: str) -> dict[str, object]:
    request = urllib.request.Request(
        f"{up.stack.web}/v1{path}",
        json.dumps(document).encode(),
        {"Authorization": f"Bearer {key}", "Idempotency-Key": idempotency},
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        found: dict[str, object] = json.load(answer)
    return found


async def seen_by_the_broker(url: str, seen: list[str]) -> None:
    """Everything that anybody says to Redis."""
    async with Redis.from_url(url, decode_responses=False) as redis, redis.monitor() as monitor:
        async for command in monitor.listen():
            seen.append(str(command["command"]))


async def test_a_service_enqueues_twice_and_has_one_campaign(urls: Urls, tmp_path: Path) -> None:
    async with installation(urls, tmp_path) as up:
        numbers = [f"+1{n[2:5]}{CANARY}" for n in answered(40 * 20)[::40]]
        spool = tmp_path / "spool"
        spool.mkdir(exist_ok=True)
        rows = "".join(f"{n},Ada\n" for n in numbers)
        (spool / "today.csv").write_text("phone,name\n" + rows)
        seen: list[str] = []
        watching = asyncio.create_task(seen_by_the_broker(urls.redis, seen))
        key = (tmp_path / "api-key").read_text()
        document = {**FILE, "account": "simulator", "retry": {"BUSY": {"delays": ["1s"]}, "max_dials": 2}}
        made = [await asyncio.to_thread(post, up, key, "/campaigns", document, "night-run") for _ in range(2)]
        assert made[0]["id"] == made[1]["id"]
        broker, campaign_id = broker_url(urls.redis), str(made[0]["id"])
        for script in (SENDER, SENDER):
            await asyncio.to_thread(subprocess.run, [sys.executable, "-c", script, broker, campaign_id], check=True)
        campaign = await up.services.store.campaign(int(campaign_id))
        await up.until_loaded(campaign, len(numbers))
        for script in (STARTER, STARTER):
            await asyncio.to_thread(subprocess.run, [sys.executable, "-c", script, broker, campaign_id], check=True)
        await up.until_done(campaign)
        status, check = await up.services.store.status(campaign), await up.check(campaign)
        watching.cancel()
        assert (status.tally.total, check.is_clean) == (len(numbers), True)
        assert len(await up.services.store.campaigns()) == 1
        assert worst_second([line.at for line in up.ledger()]) <= 100
        assert any("campaign.load" in command for command in seen)
        assert [command for command in seen if CANARY in command] == []
        assert [name for name, text in up.logs().items() if CANARY in text and name != "simulator"] == []
