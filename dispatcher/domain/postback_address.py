"""Where providers post to, and what proves that it was they."""

import hashlib
import hmac

from dispatcher.domain.account import Account


def postback_token(secret: bytes, account: str) -> str:
    """The secret part of an account's postback address."""
    return hmac.new(secret, f"hook|{account}".encode(), hashlib.sha256).hexdigest()[:40]


def postback_secret(secret: bytes, account: str) -> str:
    """What the provider signs postbacks with, where it can."""
    return hmac.new(secret, f"sign|{account}".encode(), hashlib.sha256).hexdigest()[:40]


def postback_url(public_url: str, secret: bytes, account: Account) -> str:
    """Where a provider posts the results of an account's calls."""
    return f"{public_url.rstrip('/')}/hooks/{account.provider}/{account.name}/{postback_token(secret, account.name)}"


def request_token(secret: bytes, account: str, request: str) -> str:
    """What proves that a postback is about one request of ours."""
    return hmac.new(secret, f"request|{account}|{request}".encode(), hashlib.sha256).hexdigest()[:32]


def request_url(public_url: str, secret: bytes, account: Account, request: str) -> str:
    """Where a provider posts the results of one request, named by us."""
    token = request_token(secret, account.name, request)
    return f"{public_url.rstrip('/')}/hooks/{account.provider}/{account.name}/{request}.{token}"
