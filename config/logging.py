"""Logs: one JSON object a line on stdout, phone numbers masked whatever a library wrote."""

import json
import logging
import re
import sys
from datetime import UTC, datetime

_NUMBER = re.compile(r"(?<![A-Za-z0-9.-])\+?(\d{3,4})\d{3,7}(\d{4})(?![\w-]|\.\d)")
_WRITTEN = re.compile(r"(?<!\d)(?:%2B|\+)?(\d{0,3}[ .-]?)\(?(\d{3})\)?[ .-]\d{3}[ .-](\d{4})(?![\w-]|\.\d)")
_ENCODED = re.compile(r"%2B(\d{3,4})\d{3,7}(\d{4})(?!\d)", re.IGNORECASE)
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime"}


def mask_numbers(text: str) -> str:
    """Anything that could be a phone number becomes '1202***0142'."""
    text = _ENCODED.sub(r"\1***\2", text)
    return _WRITTEN.sub(r"\1\2***\3", _NUMBER.sub(r"\1***\2", text))


class JsonLines(logging.Formatter):
    """Fields given as `extra=` become fields of the object."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "at": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": mask_numbers(record.getMessage()),
        }
        for name, value in vars(record).items():
            if name not in _STANDARD and not name.startswith("_"):
                line[name] = value if isinstance(value, int | float | bool | None) else mask_numbers(str(value))
        if record.exc_info:
            line["exception"] = mask_numbers(self.formatException(record.exc_info))
        return json.dumps(line, default=str)


def configure(level: str) -> None:
    """Log to stdout, from every library."""
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(JsonLines())
    logging.basicConfig(level=level, handlers=[handler], force=True)
    for noisy in ("httpx", "httpcore", "alembic", "uvicorn.access", "kombu", "celery.beat", "celery.worker.strategy"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
