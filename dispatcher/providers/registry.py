"""Name -> adapter, written out by hand; one adapter an account and process."""

import os
from collections.abc import Callable
from pathlib import Path

from dispatcher.domain.account import Account
from dispatcher.domain.errors import UsageError
from dispatcher.providers.callfire.client import CallFire, PostbackReader

Adapter = CallFire
Reader = PostbackReader
ADAPTERS: dict[str, Callable[[str, tuple[str, str], int, float], Adapter]] = {
    "callfire": CallFire,
}
_Address = tuple[str, str, tuple[str, str]]
"""Provider, base URL, user and password."""
READERS: dict[str, Reader] = {"callfire": PostbackReader()}
BASE_URLS = {"callfire": "https://api.callfire.com/v2"}


class Registry:
    """The Providers port."""

    def __init__(self, connections: int, deadline_s: float) -> None:
        self._connections = connections
        self._deadline_s = deadline_s
        self._open: dict[int, tuple[_Address, Adapter]] = {}
        self._left: list[Adapter] = []

    def of(self, account: Account) -> Adapter:
        """The adapter of an account, opened anew when its address or credentials have changed.

        Credentials are read each time, so that a mended password is used at the next probe. Raises UsageError for
        credentials that are not there.
        """
        address = (account.provider, account.base_url, read_credentials(account.credentials))
        known = self._open.get(account.id)
        if known and known[0] == address:
            return known[1]
        if known:
            self._left.append(known[1])  # calls may be on its wire
        adapter = ADAPTERS[account.provider](address[1], address[2], self._connections, self._deadline_s)
        self._open[account.id] = (address, adapter)
        return adapter

    def reader(self, account: Account) -> Reader:
        """What reads the account's postbacks; needs no credentials."""
        return READERS[account.provider]

    async def close(self) -> None:
        for adapter in [*self._left, *(adapter for _, adapter in self._open.values())]:
            await adapter.close()


def read_credentials(reference: str) -> tuple[str, str]:
    """'env:NAME' or 'file:PATH', holding 'user:password'. Raises UsageError; the secret is in no message."""
    kind, _, where = reference.partition(":")
    if kind == "env":
        secret = os.environ.get(where)
        if secret is None:
            raise UsageError(f"the variable {where} with the account's credentials is not set")
    elif kind == "file":
        try:
            secret = Path(where).read_text().strip()
        except OSError as error:
            raise UsageError(f"the credentials file {where} cannot be read: {error.strerror}") from error
    else:
        raise UsageError("write credentials as env:NAME or file:PATH; the secret itself is never stored")
    user, separator, password = secret.partition(":")
    if not separator:
        raise UsageError(f"the credentials in {reference} must be written as user:password")
    return user, password
