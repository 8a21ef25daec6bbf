"""python -m dispatcher.web"""

import uvicorn

import config
from config.logging import configure
from dispatcher.bootstrap import running_urls
from dispatcher.web.app import make_app
from dispatcher.web.connections import RESERVE, guarded, raise_file_limit

_KEEP_ALIVE_S = 75
"""Longer than the 60 s of most proxies: the side that sends requests should be the one to close a connection."""
_STOP_S = 10
"""Less than the 15 s that supervisord and Docker wait: an upload that is cancelled, not killed, removes its file."""


def main() -> None:
    """Serve until TERM."""
    settings = config.load()
    configure(settings.log_level)
    app = make_app(settings, running_urls(settings))
    places = max(1, min(settings.web.most_connections, raise_file_limit() - RESERVE))
    uvicorn.run(
        app,
        host=settings.web.host,
        port=settings.web.port,
        loop="uvloop",
        http=guarded(places),
        ws="none",
        timeout_keep_alive=_KEEP_ALIVE_S,
        timeout_graceful_shutdown=_STOP_S,
        log_config=None,
        access_log=False,
    )


if __name__ == "__main__":
    main()
