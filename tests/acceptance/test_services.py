"""Another service, which knows only the README: it enqueues by HTTP and by task name, twice, and no number leaks."""

import asyncio
import json
import subprocess
import sys
import time
import urllib.error
import urllib.request
from base64 import b64encode
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from config.celery import broker_url
from dispatcher.bootstrap import Urls, flower_password
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


def flower_tasks(up: Installation) -> list[dict[str, Any]]:
    """What flower shows to who knows the password, once it shows the campaign's end; nothing to others."""
    address = f"http://127.0.0.1:{up.settings.flower.port}/api/tasks?limit=10000"
    with pytest.raises(urllib.error.HTTPError, match="401"):
        urllib.request.urlopen(address, timeout=10)
    password = b64encode(f"operator:{flower_password(up.settings)}".encode()).decode()
    request = urllib.request.Request(address, headers={"Authorization": f"Basic {password}"})
    deadline = time.monotonic() + 30
    while True:
        with urllib.request.urlopen(request, timeout=10) as answer:
            tasks: list[dict[str, Any]] = list(json.load(answer).values())
        if any(t["name"] == "campaign" and t["state"] == "SUCCESS" for t in tasks) or time.monotonic() > deadline:
            return tasks
        time.sleep(0.5)


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
        missing = SENDER.replace("today.csv", "missing.csv")
        await asyncio.to_thread(subprocess.run, [sys.executable, "-c", missing, broker, campaign_id], check=True)
        await up.until_loaded(campaign, len(numbers))
        for script in (STARTER, STARTER):
            await asyncio.to_thread(subprocess.run, [sys.executable, "-c", script, broker, campaign_id], check=True)
        await up.until_done(campaign)
        status, check = await up.services.store.status(campaign), await up.check(campaign)
        assert sorted((x.source, x.state) for x in status.loads) == [("missing.csv", "FAILED"), ("today.csv", "DONE")]
        watching.cancel()
        tasks = await asyncio.to_thread(flower_tasks, up)
        (row,) = [t for t in tasks if t["name"] == "campaign"]
        assert (row["state"], row["result"].startswith(f"{len(numbers)}/{len(numbers)} 100 %")) == ("SUCCESS", True)
        assert {"campaign.load", "campaign.start", "account.shift"} <= {t["name"] for t in tasks}
        assert CANARY not in json.dumps(tasks)
        assert (status.state_counts.total, check.is_clean) == (len(numbers), True)
        assert len(await up.services.store.campaigns()) == 1
        assert worst_second([line.at for line in up.ledger()]) <= 100
        assert any("campaign.load" in command for command in seen)
        assert [command for command in seen if CANARY in command] == []
        assert [name for name, text in up.logs().items() if CANARY in text and name != "simulator"] == []
