"""Providers: HTTP and vendor words, nothing of the store."""

from dispatcher.providers.registry import Registry

__all__ = ["Registry"]
