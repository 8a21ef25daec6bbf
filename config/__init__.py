"""Values only: what an installation may set."""

from config.settings import Settings, load

__all__ = ["Settings", "load"]
