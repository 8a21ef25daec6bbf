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
READERS: dict[str, Reader] = {"callfire": PostbackReader()}
BASE_URLS = {"callfire": "https://api.callfire.com/v2"}


class Registry:
    """The Providers port."""

    def __init__(self, connections: int, deadline_s: float) -> None:
        self._connections = connections
        self._deadline_s = deadline_s
        self._open: dict[tuple[int, int], Adapter] = {}

    def of(self, account: Account) -> Adapter:
        """The adapter of an account, opened on first use. Raises UsageError for credentials that are not there.

        They are read anew for each stop of the account, so that a changed password is used by the next probe.
        """
        name = (account.id, account.stops)
        if name not in self._open:
            credentials = read_credentials(account.credentials)
            make = ADAPTERS[account.provider]
            self._open[name] = make(account.base_url, credentials, self._connections, self._deadline_s)
        return self._open[name]

    def reader(self, account: Account) -> Reader:
        """What reads the account's postbacks; needs no credentials."""
        return READERS[account.provider]

    async def close(self) -> None:
        for adapter in self._open.values():
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
