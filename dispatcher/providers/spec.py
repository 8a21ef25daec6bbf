"""What a provider's folder gives to the registry: one `Kit`."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from dispatcher.domain.capability import Capabilities
from dispatcher.domain.provider_body import PayloadParser
from dispatcher.providers.adapter import Adapter, AdapterConfig, Options


@dataclass(frozen=True)
class ProviderSpec:
    """A provider, as the registry knows it."""

    base_url: Callable[[Options], str]
    open: Callable[[AdapterConfig], Adapter]
    parser: Callable[[Options], PayloadParser]
    capabilities: Callable[[Options], Capabilities]
    options: Mapping[str, str | tuple[str, ...]] = field(default_factory=dict)
    """Names of the options of an account: a default, or the allowed words with the default first."""
    patterns: Mapping[str, str] = field(default_factory=dict)
    """What a value must look like, by option."""
    secret_form: str = "user:password"
    """How its secret is written."""
