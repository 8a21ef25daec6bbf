"""What a provider's folder gives to the registry: one `Kit`."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from dispatcher.domain.capability import Capabilities
from dispatcher.domain.reading import Body, Reading
from dispatcher.providers.adapter import Adapter

Options = Mapping[str, str]


@dataclass(frozen=True)
class Opening:
    """Everything that an adapter of one account is opened with."""

    base_url: str
    secret: str = field(repr=False)
    """As it stands where `credentials` point to: 'user:password', or a token."""
    options: Options
    callback_url: Callable[[str], str]
    """Where the results of one request are posted, by the request's name."""
    calls_per_request: int = 1
    connections: int = 1
    deadline_s: float = 12


class Reader(Protocol):
    """Reads what a provider answers and posts."""

    def read(self, body: Body) -> Reading:
        """Raises PayloadError."""
        ...

    def is_authentic(self, headers: Mapping[str, str], body: bytes, secret: str) -> bool: ...


@dataclass(frozen=True)
class Kit:
    """A provider, as the registry knows it."""

    base_url: Callable[[Options], str]
    open: Callable[[Opening], Adapter]
    reader: Callable[[Options], Reader]
    capabilities: Callable[[Options], Capabilities]
    options: Mapping[str, str | tuple[str, ...]] = field(default_factory=dict)
    """Names of the options of an account: a default, or the allowed words with the default first."""
    patterns: Mapping[str, str] = field(default_factory=dict)
    """What a value must look like, by option."""
    secret_form: str = "user:password"
    """How its secret is written."""
