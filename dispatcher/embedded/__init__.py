"""A real PostgreSQL and a real Valkey, started when no URL is configured."""

from dispatcher.embedded.servers import Embedded, Servers

__all__ = ["Embedded", "Servers"]
