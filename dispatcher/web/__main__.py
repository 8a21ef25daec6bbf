"""python -m dispatcher.web"""

import uvicorn

import config
from config.logging import configure
from dispatcher.bootstrap import running_urls
from dispatcher.web.app import make_app


def main() -> None:
    """Serve until TERM."""
    settings = config.load()
    configure(settings.log_level)
    app = make_app(settings, running_urls(settings))
    uvicorn.run(app, host=settings.web.host, port=settings.web.port, log_config=None, access_log=False)


if __name__ == "__main__":
    main()
