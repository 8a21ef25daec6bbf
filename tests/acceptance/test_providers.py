"""Every interface of every provider, with every outcome of the simulator, all at once: each campaign ends by itself."""

import sys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from dispatcher.bootstrap import Urls
from dispatcher.cli.accounts import subscribe_account
from dispatcher.domain.account import Account, NewAccount
from dispatcher.domain.capability import CallbackAuth
from tests.acceptance.harness import Installation, fictional, installation
from tests.factories import exported

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(1300)]

POLICY = {
    "cps": 500,
    "retry": {
        "max_dials": 2,
        "jitter": 0,
        "BUSY": {"delays": ["1s"]},
        "CARRIER_TEMP_ERROR": {"delays": ["2s"]},
    },
    "timeouts": {"unknown": "15s", "accepted": "15s", "provider_retry": "15s"},
}
ALL = range(100)


@dataclass(frozen=True)
class Interface:
    """One way to speak to a provider, and what differs there from what the digits say: by ending, or by digits."""

    name: str
    provider: str
    path: str
    options: dict[str, str] = field(default_factory=dict)
    differs: dict[str | int, str] = field(default_factory=dict)
    calls_per_request: int = 1
    content: dict[str, Any] = field(default_factory=lambda: {"text": "Hello"})


EXPECTED: tuple[tuple[range, str], ...] = (
    (range(40), "FINISHED LA"),
    (range(40, 50), "FINISHED LA"),
    (range(50, 55), "FINISHED BUSY"),
    (range(55, 60), "FINISHED LA"),
    (range(60, 65), "FINISHED CARRIER_TEMP_ERROR"),
    (range(65, 70), "FINISHED NO_ANS"),
    (range(70, 73), "FINISHED AM"),
    (range(73, 75), "FINISHED CARRIER_ERROR"),
    (range(75, 78), "INVALID"),
    (range(78, 80), "DNC"),
    (range(80, 83), "FINISHED LA"),
    (range(83, 84), "TIMEOUT"),
    (range(84, 86), "TIMEOUT"),
    (range(86, 88), "FINISHED LA"),
    (range(88, 90), "FINISHED LA"),
    (range(90, 92), "FINISHED LA"),
    (range(92, 93), "TIMEOUT"),
    (range(93, 94), "FINISHED LA"),
    (range(94, 96), "FINISHED LA"),
    (range(96, 97), "FINISHED LA"),
    (range(97, 98), "FINISHED LA"),
    (range(98, 99), "TIMEOUT"),
    (range(99, 100), "FINISHED LA"),
)
"""By the last two digits. 92: an error that rang nobody looks like one that did, so it is never dialled again."""

NO_DETECTION: dict[str | int, str] = {"FINISHED AM": "FINISHED LA"}
BLIND: dict[str | int, str] = {86: "TIMEOUT", 87: "TIMEOUT", 97: "TIMEOUT"}
"""Bulk answers name no calls, so what is never told cannot be asked for."""
INTERFACES = (
    Interface("callfire 1.1 XML", "callfire", "/api/1.1/rest", {"api": "1.1", "format": "xml"}),
    Interface("callfire 1.1 JSON", "callfire", "/api/1.1/rest", {"api": "1.1", "format": "json"}),
    Interface("callfire 2", "callfire", "/v2"),
    # they keep no do-not-call list and detect no machines
    Interface("fortytwo", "fortytwo", "", differs={**NO_DETECTION, "DNC": "FINISHED CARRIER_ERROR"}),
    Interface(
        "phonon real-time",
        "phonon",
        "",
        {"flow": "AbCd1234", "pull_url": "{address}/kairos-apis/pull"},
        NO_DETECTION,
    ),
    Interface(
        "phonon bulk",
        "phonon",
        "/bulk",
        {"mode": "bulk", "flow": "EfGh5678", "pull_url": "{address}/kairos-apis/pull"},
        {**NO_DETECTION, **BLIND},
    ),
)


async def add_account(up: Installation, face: Interface, secret: Path) -> Account:
    address = f"http://127.0.0.1:{up.port}"
    options = {name: value.replace("{address}", address) for name, value in face.options.items()}
    account = await up.services.store.add_account(
        NewAccount(
            name=face.name.lower().replace(" ", "-").replace(".", ""),
            provider=face.provider,
            base_url=address + face.path,
            credentials=f"file:{secret}",
            cps=200,
            in_flight=5000,
            options=options,
            calls_per_request=face.calls_per_request,
        )
    )
    if up.services.providers.capabilities(account).callback_auth is not CallbackAuth.REQUEST_TOKEN:
        await subscribe(up, account)
    return account


async def subscribe(up: Installation, account: Account) -> None:
    if account.provider == "phonon":
        await up.tell_portal(account)
    else:
        await subscribe_account(up.services, up.settings, account)


def numbers(place: int, rows: int) -> list[str]:
    """Fictional ones; those of each interface are its own, because nobody has two calls at once."""
    everywhere = fictional(40 * len(INTERFACES) * 100, ALL)
    return everywhere[place * 4000 : place * 4000 + rows]


def expected_of(face: Interface, number: str) -> str:
    said = next(word for digits, word in EXPECTED if int(number[-2:]) in digits)
    return face.differs.get(int(number[-2:]), face.differs.get(said, said))


def fits(face: Interface, number: str, found: str) -> bool:
    """State and result; where the script names no result, the state alone."""
    expected = expected_of(face, number)
    return found == expected or found.split()[0] == expected


def said_of(face: Interface, digits: range, said: str) -> str:
    return face.differs.get(digits[0], face.differs.get(said, said))


def table(face: Interface, found: dict[str, str]) -> str:
    lines = [f"{face.name}: {len(found)} rows"]
    for digits, said in EXPECTED:
        seen = Counter(end for number, end in found.items() if int(number[-2:]) in digits)
        ends = ", ".join(f"{end} {n}" for end, n in sorted(seen.items()))
        lines.append(f"  {digits[0]:02d}-{digits[-1]:02d}  {said_of(face, digits, said):30}  {ends}")
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize("rows", [100, pytest.param(2000, marks=pytest.mark.full)])
async def test_every_interface_ends_every_digit_as_its_script_says(urls: Urls, tmp_path: Path, rows: int) -> None:
    async with installation(urls, tmp_path, throttle=2) as up:
        up.give_up_s = max(up.give_up_s, rows / 2)
        secret = tmp_path / "simulator-secret"
        secret.write_text("simulator:simulator")
        running = []
        for place, face in enumerate(INTERFACES):
            account = await add_account(up, face, secret)
            asked = numbers(place, rows)
            campaign = await up.campaign(asked, account=account.name, content=face.content, **POLICY)
            running.append((face, campaign, asked))
        for _, campaign, _ in running:
            await up.until_done(campaign)
        wrong = []
        for face, campaign, asked in running:
            found = {
                r.e164 or "": f"{r.state} {r.result or ''}".strip() for r in await exported(up.services.store, campaign)
            }
            wrong += [(face.name, n[-2:], found[n], expected_of(face, n)) for n in asked if not fits(face, n, found[n])]
            sys.stdout.write(table(face, found))
        check = await up.check(*(campaign for _, campaign, _ in running))
        assert wrong == []
        # what Fortytwo does not cover is told after it was accepted, and was never rung
        uncovered = 2 * rows // 100
        assert (check.unknown_keys, check.doubled_keys, check.after_final) == ((), (), ()), check
        assert len(check.missing) == uncovered, check.missing
        assert await up.services.store.verify() == []
