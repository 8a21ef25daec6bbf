"""What CallFire keeps in lists: subscriptions, and numbers that must not be called."""

import pytest

from dispatcher.domain.errors import ServerError
from tests.contract.answering import http
from tests.contract.test_callfire import provider


def listed(numbers: list[str], total: int | None = None) -> bytes:
    return http(200, {"items": [{"number": number} for number in numbers], "totalCount": total})


async def test_only_what_has_the_whole_address_is_taken_back() -> None:
    address = "http://hooks.example/hooks/main/" + "s" * 60
    webhooks = [{"id": 1, "callback": address, "resource": "OutboundCall"}, {"id": 2, "callback": address + "/other"}]

    def answer(request: bytes) -> bytes:
        return http(200, {"items": webhooks, "totalCount": 2}) if request.startswith(b"GET") else http(204)

    async with provider(answer) as (client, seen):
        assert await client.unsubscribe(address) == 1
    assert [r.split(b" ")[1] for r in seen if r.startswith(b"DELETE")] == [b"/v2/webhooks/1"]


async def test_pages_may_be_smaller_than_what_was_asked_for() -> None:
    pages = iter([listed(["12025550101", "12025550102"], 3), listed(["12025550103"], 3)])
    async with provider(lambda request: next(pages)) as (client, seen):
        assert await client.dnc_numbers() == ["+12025550101", "+12025550102", "+12025550103"]
    assert b"offset=2" in seen[1]


async def test_a_list_without_end_is_given_up() -> None:
    async with provider(lambda request: listed(["12025550101"])) as (client, seen):
        with pytest.raises(ServerError, match="whole list"):
            await client.dnc_numbers()
    assert len(seen) == 2


async def test_half_a_list_is_not_taken_for_the_whole() -> None:
    """It would take everybody else off ours."""
    pages = iter([listed(["12025550101"], 1000), listed([], 1000)])
    async with provider(lambda request: next(pages)) as (client, _):
        with pytest.raises(ServerError, match="whole list"):
            await client.dnc_numbers()
