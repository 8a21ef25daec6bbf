"""Name -> provider, written out by hand; one adapter an account and process."""

import asyncio
import os
import re
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from dispatcher.domain.account import Account
from dispatcher.domain.capability import Capabilities
from dispatcher.domain.errors import UsageError
from dispatcher.domain.provider_body import PayloadParser
from dispatcher.providers.adapter import Adapter, AdapterConfig
from dispatcher.providers.callfire.client import SPEC as CALLFIRE
from dispatcher.providers.fortytwo.client import SPEC as FORTYTWO
from dispatcher.providers.phonon.client import SPEC as PHONON
from dispatcher.providers.spec import ProviderSpec

SPECS: dict[str, ProviderSpec] = {"callfire": CALLFIRE, "fortytwo": FORTYTWO, "phonon": PHONON}
CallbackUrl = Callable[[Account, str], str]
"""Where the results of one request of an account are posted."""
QUIET_AFTER_S = 60.0
"""An adapter that was replaced so long ago has nothing on its wire: no shift and no round of questions lasts longer."""


class Registry:
    """The Providers port."""

    def __init__(self, connections: int, deadline_s: float, callback_url: CallbackUrl) -> None:
        self._connections = connections
        self._deadline_s = deadline_s
        self._callback_url = callback_url
        self._open: dict[int, tuple[tuple[object, ...], Adapter]] = {}
        self._left: list[tuple[Adapter, float]] = []
        """Those that were replaced, and when; the oldest first."""
        self._closing: set[asyncio.Task[None]] = set()

    def of(self, account: Account) -> Adapter:
        """The adapter of an account, opened anew when its address, options or credentials have changed.

        Credentials are read each time, so that a mended password is used at the next probe. Raises UsageError for
        credentials that are not there.
        """
        self._close_quiet()
        spec = spec_of(account.provider)
        secret = read_credentials(account.credentials, spec.secret_form)
        address = (account.provider, account.base_url, secret, dict(account.options), account.calls_per_request)
        known = self._open.get(account.id)
        if known and known[0] == address:
            return known[1]
        if known:
            self._left.append((known[1], time.monotonic()))  # calls may be on its wire
        options = with_defaults(spec, account.options)
        adapter = spec.open(
            AdapterConfig(
                base_url=account.base_url,
                secret=secret,
                options=options,
                callback_url=partial(self._callback_url, account),
                calls_per_request=min(account.calls_per_request, spec.capabilities(options).most_calls),
                connections=self._connections,
                deadline_s=self._deadline_s,
            )
        )
        self._open[account.id] = (address, adapter)
        return adapter

    def parser(self, account: Account) -> PayloadParser:
        """What reads the account's postbacks; needs no credentials."""
        spec = spec_of(account.provider)
        return spec.parser(with_defaults(spec, account.options))

    def capabilities(self, account: Account) -> Capabilities:
        """What the account's adapter declares."""
        spec = spec_of(account.provider)
        return spec.capabilities(with_defaults(spec, account.options))

    def _close_quiet(self) -> None:
        while self._left and time.monotonic() - self._left[0][1] > QUIET_AFTER_S:
            task = asyncio.get_running_loop().create_task(self._left.pop(0)[0].close())
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)

    async def close(self) -> None:
        await asyncio.gather(*self._closing, return_exceptions=True)
        for adapter in [*(adapter for adapter, _ in self._left), *(adapter for _, adapter in self._open.values())]:
            await adapter.close()


def spec_of(provider: str) -> ProviderSpec:
    """Raises UsageError."""
    if provider not in SPECS:
        raise UsageError(f"there is no provider '{provider[:40]}'; known are {', '.join(SPECS)}")
    return SPECS[provider]


def with_defaults(spec: ProviderSpec, options: Mapping[str, str]) -> dict[str, str]:
    """All options of a provider, those that are not set at their defaults."""
    defaults = {name: words if isinstance(words, str) else words[0] for name, words in spec.options.items()}
    return {**defaults, **options}


def check_options(provider: str, options: Mapping[str, str]) -> None:
    """Raises UsageError for an option that the provider does not have, or a word that it does not allow."""
    spec = spec_of(provider)
    for name, value in options.items():
        if name not in spec.options:
            known = ", ".join(spec.options) or "none"
            raise UsageError(f"'{name}' is no option of {provider}; it has: {known}")
        allowed = spec.options[name]
        if not isinstance(allowed, str) and value not in allowed:
            raise UsageError(f"--option {name} must be one of: {', '.join(allowed)}")
        pattern = spec.patterns.get(name)
        if pattern and not re.fullmatch(pattern, value):
            raise UsageError(f"--option {name} does not look like one ({pattern}); see docs/providers.md")
    spec.parser(with_defaults(spec, options))  # it refuses what a pattern cannot tell


def default_base_url(provider: str, options: Mapping[str, str]) -> str:
    """The provider's own address. Raises UsageError."""
    spec = spec_of(provider)
    return spec.base_url(with_defaults(spec, options))


def read_credentials(reference: str, form: str) -> str:
    """What 'env:NAME' or 'file:PATH' holds. Raises UsageError; the secret is in no message."""
    kind, _, where = reference.partition(":")
    if kind == "env":
        secret = os.environ.get(where)
        if secret is None:
            raise UsageError(f"the variable {where} with the account's credentials is not set")
    elif kind == "file":
        try:
            secret = Path(where).read_text()
        except (OSError, UnicodeDecodeError) as error:
            why = error.strerror if isinstance(error, OSError) else "it is no text"
            raise UsageError(f"the credentials file {where} cannot be read: {why}") from error
    else:
        raise UsageError("write credentials as env:NAME or file:PATH; the secret itself is never stored")
    secret = secret.strip()
    if not secret or not secret.isprintable() or not secret.isascii() or (":" in form and ":" not in secret):
        raise UsageError(f"the credentials in {reference} must be written as {form}")
    return secret
