"""Where Phonon's callbacks come from. They sign nothing, so the address that they come from is a second proof."""

from ipaddress import ip_network

from dispatcher.domain.errors import UsageError


def checked_sources(listed: str) -> str:
    """Returns the option unchanged. Raises UsageError for a part that is not an address or a network."""
    for part in listed.split(",") if listed else ():
        try:
            ip_network(part.strip())
        except ValueError:
            raise UsageError(
                f"source_addresses: '{part.strip()[:50]}' is not an address; write e.g. 203.0.113.7,198.51.100.0/24"
            ) from None
    return listed
