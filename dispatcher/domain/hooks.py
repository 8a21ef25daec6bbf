"""Where providers post to, and what proves that it was they."""

import hashlib
import hmac

from dispatcher.domain.account import Account


def hook_token(secret: bytes, account: str) -> str:
    """The secret part of an account's postback address."""
    return hmac.new(secret, f"hook|{account}".encode(), hashlib.sha256).hexdigest()[:40]


def hook_secret(secret: bytes, account: str) -> str:
    """What the provider signs postbacks with, where it can."""
    return hmac.new(secret, f"sign|{account}".encode(), hashlib.sha256).hexdigest()[:40]


def hook_url(public_url: str, secret: bytes, account: Account) -> str:
    """Where a provider posts the results of an account's calls."""
    return f"{public_url.rstrip('/')}/hooks/{account.provider}/{account.name}/{hook_token(secret, account.name)}"
