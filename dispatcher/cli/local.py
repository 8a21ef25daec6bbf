"""Asks a process on this machine, never through a proxy."""

import urllib.error
import urllib.request
from http.client import HTTPException

_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def reach(address: str, seconds: float) -> str | None:
    """None when it answers well; else why not."""
    try:
        with _OPENER.open(address, timeout=seconds):
            return None
    except (urllib.error.URLError, OSError, HTTPException) as error:
        return str(getattr(error, "reason", error)) or type(error).__name__
