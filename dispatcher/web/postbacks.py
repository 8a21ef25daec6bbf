"""The postback door: authenticate, cap, store raw, answer 200. It decides nothing.

It is bare ASGI, in front of the application: hundreds of postbacks come in a second, and routing, parameters and
response objects would cost more than the work itself.
"""

import asyncio
import hmac
import logging
from functools import lru_cache, partial
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network

from starlette.datastructures import Headers
from starlette.types import Message, Receive, Scope, Send

from dispatcher.domain.account import Account
from dispatcher.domain.errors import NotFound, ServerError
from dispatcher.domain.postback import RawPostback
from dispatcher.domain.postback_address import postback_secret, postback_token, request_token
from dispatcher.ports import Services
from dispatcher.web.inbox import Inbox

log = logging.getLogger(__name__)

PATH = "/hooks/{provider}/{account_name}/{token}"
MOST_BYTES = 64 * 1024
READ_DEADLINE_S = 5.0
SOURCES = "source_addresses"
"""The option of an account that lists where its postbacks come from, for providers that sign nothing."""
_PREFIX = "/hooks/"
_TYPES = frozenset(
    {
        "application/json",
        "text/json",
        "application/xml",
        "text/xml",
        "application/x-www-form-urlencoded",
        "multipart/form-data",
    }
)
_LONGEST_TYPE = 200
_REMEMBER_S = 5
_LOOK_UP_DEADLINE_S = 5
_NAMES = 1024
_LEFT = 400
"""The client has gone, and will not read the answer."""


def _start(status: int) -> Message:
    headers = [(b"content-length", b"0")]
    if status == 503:
        headers.append((b"retry-after", b"5"))
    return {"type": "http.response.start", "status": status, "headers": headers}


_STARTS = {status: _start(status) for status in (200, _LEFT, 403, 404, 408, 413, 415, 503)}
_END: Message = {"type": "http.response.body", "body": b""}


class _Known:
    """An account as it was looked up, what reads its postbacks, and where they may come from."""

    __slots__ = ("account", "fresh_until", "parser", "sources")

    def __init__(self, account: Account, services: Services, fresh_until: float) -> None:
        self.account, self.fresh_until = account, fresh_until
        self.parser = services.providers.parser(account)
        self.sources = networks(account.options.get(SOURCES, ""))


def networks(listed: str) -> tuple[IPv4Network | IPv6Network, ...]:
    """The networks of a list with commas; none means that any will do."""
    return tuple(ip_network(part.strip()) for part in listed.split(",")) if listed else ()


def is_within(source_ip: str, sources: tuple[IPv4Network | IPv6Network, ...]) -> bool:
    """Is the sender within one of these networks? With none, every sender is; what cannot be read never is."""
    if not sources:
        return True
    try:
        address = ip_address(source_ip)
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)  # IPv4 as a socket of IPv6 sees it
    return any((mapped or address) in network for network in sources)


class PostbackAuthenticator:
    """What the route needs."""

    def __init__(self, services: Services, inbox: Inbox, secret: bytes) -> None:
        self.services, self.inbox = services, inbox
        self._secret = secret
        self._known: dict[str, _Known] = {}
        self._token = lru_cache(_NAMES)(partial(postback_token, secret))
        self.signing_secret = lru_cache(_NAMES)(partial(postback_secret, secret))

    async def account(self, provider: str, name: str, token: str) -> tuple[_Known, str | None] | None:
        """The account, and the request, whose address this is; None for a wrong name or token alike."""
        request, dot, given = token.rpartition(".")
        expected = request_token(self._secret, name, request) if dot else self._token(name)
        if not hmac.compare_digest(expected.encode(), given.encode()):
            return None
        known = self._known.get(name)
        if known is None or known.fresh_until < self.services.clock.now():
            known = await self._look_up(name, known)
        return (known, request or None) if known and known.account.provider == provider else None

    async def _look_up(self, name: str, known: _Known | None) -> _Known | None:
        """What was known still serves while one request looks again, and as long as PostgreSQL is away."""
        until = self.services.clock.now() + _REMEMBER_S
        if known:
            known.fresh_until = until
        try:
            async with asyncio.timeout(_LOOK_UP_DEADLINE_S):
                account = await self.services.store.account_named(name)
        except NotFound:
            self._known.pop(name, None)
            return None
        except (ServerError, TimeoutError) as error:
            if known is None:
                raise ServerError("the account cannot be looked up") from error
            return known
        self._known[name] = _Known(account, self.services, until)
        return self._known[name]


class PostbackEndpoint:
    """The route, as an ASGI application. A provider's message: 200 means that it is on disk."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        authenticator: PostbackAuthenticator = scope["app"].state.authenticator
        try:
            status = await _take(authenticator, scope, receive)
        except ServerError:
            status = 503
        await send(_STARTS[status])
        await send(_END)


def is_postback(scope: Scope) -> bool:
    """Is this for `Hook`? Near misses (another method, one word more) are left to the application's routes."""
    return (
        scope["type"] == "http"
        and scope["path"].startswith(_PREFIX)
        and scope["method"] == "POST"
        and len(words := _words(scope)) == 3
        and all(words)
    )


def _words(scope: Scope) -> list[str]:
    path: str = scope["path"]
    return path[len(_PREFIX) :].split("/")


async def _take(authenticator: PostbackAuthenticator, scope: Scope, receive: Receive) -> int:
    """Store it, or not; the status says which."""
    provider, account_name, token = _words(scope)
    found = await authenticator.account(provider, account_name, token)
    if found is None:
        return 404
    known, our_request = found
    account = known.account
    client = scope.get("client")
    source_ip = client[0] if client else "unknown"
    if not is_within(source_ip, known.sources):
        log.warning("postback from elsewhere", extra={"account_id": account.id, "source_ip": source_ip})
        return 403
    headers = Headers(scope=scope)
    content_type = headers.get("content-type", "")[:_LONGEST_TYPE]
    if content_type.partition(";")[0].strip().casefold() not in _TYPES:
        return 415
    body = await _read(receive)
    if isinstance(body, int):
        return body
    if not known.parser.is_authentic(headers, body, authenticator.signing_secret(account.name)):
        log.warning("postback with a wrong signature", extra={"account_id": account.id})
        return 403
    await authenticator.inbox.store(
        RawPostback(
            account_id=account.id,
            content_type=content_type,
            body=body,
            source_ip=source_ip,
            request=our_request,
        )
    )
    return 200


async def _read(receive: Receive) -> bytes | int:
    """The body, or the status that says why there is none."""
    body = bytearray()
    try:
        async with asyncio.timeout(READ_DEADLINE_S):
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    return _LEFT
                body += message.get("body", b"")
                if len(body) > MOST_BYTES:
                    return 413
                if not message.get("more_body", False):
                    return bytes(body)
    except TimeoutError:
        return 408
