"""The postback door: authenticate, cap, store raw, answer 200. It decides nothing."""

import asyncio
import hmac
import logging

from fastapi import APIRouter, Request, Response

from dispatcher.domain.account import Account
from dispatcher.domain.errors import NotFound, ServerError
from dispatcher.domain.hooks import hook_secret, hook_token, request_token
from dispatcher.domain.postback import RawPostback
from dispatcher.ports import Services
from dispatcher.web.inbox import Inbox

log = logging.getLogger(__name__)
router = APIRouter()

MOST_BYTES = 64 * 1024
READ_DEADLINE_S = 5
_TYPES = (
    "application/json",
    "text/json",
    "application/xml",
    "text/xml",
    "application/x-www-form-urlencoded",
    "multipart/form-data",
)
_LONGEST_TYPE = 200
_REMEMBER_S = 5


class Door:
    """What the route needs."""

    def __init__(self, services: Services, inbox: Inbox, secret: bytes) -> None:
        self.services, self.inbox, self.secret = services, inbox, secret
        self._accounts: dict[str, Account] = {}
        self._forget_at = 0.0

    async def account(self, provider: str, name: str, token: str) -> tuple[Account, str | None] | None:
        """The account, and the request, whose address this is; None for a wrong name or token alike."""
        request, dot, given = token.rpartition(".")
        expected = request_token(self.secret, name, request) if dot else hook_token(self.secret, name)
        if not hmac.compare_digest(expected.encode(), given.encode()):
            return None
        now = self.services.clock.now()
        if now > self._forget_at:
            self._accounts, self._forget_at = {}, now + _REMEMBER_S
        if name not in self._accounts:
            try:
                self._accounts[name] = await self.services.store.account_named(name)
            except NotFound:
                return None
        account = self._accounts[name]
        return (account, request or None) if account.provider == provider else None


@router.post("/hooks/{provider}/{account_name}/{token}")
async def hook(provider: str, account_name: str, token: str, request: Request) -> Response:
    """A provider's message. 200 means: it is on disk."""
    door: Door = request.app.state.door
    try:
        known = await door.account(provider, account_name, token)
        if known is None:
            return Response(status_code=404)
        account, our_request = known
        content_type = request.headers.get("content-type", "")[:_LONGEST_TYPE]
        if content_type.partition(";")[0].strip().casefold() not in _TYPES:
            return Response(status_code=415)
        body = await _read(request)
        if isinstance(body, Response):
            return body
        signed = door.services.providers.reader(account).is_authentic(
            request.headers, body, hook_secret(door.secret, account.name)
        )
        if not signed:
            log.warning("postback with a wrong signature", extra={"account_id": account.id})
            return Response(status_code=403)
        source = request.client.host if request.client else "unknown"
        raw = RawPostback(
            account_id=account.id, content_type=content_type, body=body, source_ip=source, request=our_request
        )
        await door.inbox.store(raw)
    except ServerError:
        return Response(status_code=503, headers={"Retry-After": "5"})
    return Response(status_code=200)


async def _read(request: Request) -> bytes | Response:
    body = bytearray()
    try:
        async with asyncio.timeout(READ_DEADLINE_S):
            async for chunk in request.stream():
                body += chunk
                if len(body) > MOST_BYTES:
                    return Response(status_code=413)
    except TimeoutError:
        return Response(status_code=408)
    return bytes(body)
