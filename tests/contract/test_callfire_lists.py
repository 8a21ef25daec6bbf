"""What CallFire keeps in lists: subscriptions, and numbers that must not be called."""

import pytest

from dispatcher.domain.errors import ServerError
from tests.contract.answering import http
from tests.contract.test_callfire import provider


async def test_only_what_has_the_whole_address_is_taken_back() -> None:
    address = "http://hooks.example/hooks/main/" + "s" * 60
    listed = [{"id": 1, "callback": address, "resource": "OutboundCall"}, {"id": 2, "callback": address + "/other"}]

    def answer(request: bytes) -> bytes:
        return http(200, {"items": listed, "totalCount": 2}) if request.startswith(b"GET") else http(204)

    async with provider(answer) as (client, seen):
        assert await client.unsubscribe(address) == 1
    assert [r.split(b" ")[1] for r in seen if r.startswith(b"DELETE")] == [b"/v2/webhooks/1"]


async def test_pages_may_be_smaller_than_what_was_asked_for() -> None:
    pages = [["12025550101", "12025550102"], ["12025550103"]]
    left = iter([http(200, {"items": [{"number": n} for n in page], "totalCount": 3}) for page in pages])
    async with provider(lambda request: next(left)) as (client, seen):
        assert await client.dnc_numbers() == ["+12025550101", "+12025550102", "+12025550103"]
    assert b"offset=2" in seen[1]


async def test_a_list_without_end_is_given_up() -> None:
    async with provider(lambda request: http(200, {"items": [{"number": "12025550101"}]})) as (client, seen):
        with pytest.raises(ServerError, match="whole list"):
            await client.dnc_numbers()
    assert len(seen) == 2


async def test_half_a_list_is_not_taken_for_the_whole() -> None:
    """It would take everybody else off ours."""
    left = iter([["12025550101"], []])
    page = lambda request: http(200, {"items": [{"number": n} for n in next(left)], "totalCount": 1000})  # noqa: E731
    async with provider(page) as (client, _):
        with pytest.raises(ServerError, match="whole list"):
            await client.dnc_numbers()
