"""Log lines that read well and parse well: a constant sentence, and fields.

`QUIKTRADE_LOG_FORMAT` chooses how they are written: `plain`, the sentence and then `key=value`, or `json`, an object on
each line. Every line of ours has the field `event`, by which it is found; docs/logs.md lists them.
"""

import json
import logging
import os
import sys
import time
from typing import Any

from quiktrade.texts import shown

FORMAT = "QUIKTRADE_LOG_FORMAT"

# "request" is an object that Django attaches for its own handlers.
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName", "request"}


def formatter() -> logging.Formatter:
    """The formatter that the environment asks for. settings.py refuses other words than these two."""
    return JsonFormatter() if os.environ.get(FORMAT, "").strip() == "json" else FieldFormatter()


class FieldFormatter(logging.Formatter):
    """`2026-01-31T09:30:00.123Z WARNING orders.engine Order not sent order_id=… venue=XSIM`, time in UTC."""

    converter = staticmethod(time.gmtime)

    def format(self, record: logging.LogRecord) -> str:
        text = " ".join(f"{key}={_quoted(value)}" for key, value in _fields(record).items())
        line = f"{_stamp(self, record)} {record.levelname} {record.name} {record.getMessage()}"
        line = shown(f"{line} {text}" if text else line)
        if record.exc_info:
            line += "\n" + shown(self.formatException(record.exc_info), but="\n\t")
        return line


class JsonFormatter(logging.Formatter):
    """`{"time": "2026-01-31T09:30:00.123Z", "level": "WARNING", "logger": "orders.engine", "message": "Order not sent",
    "event": …, "order_id": …}`, with `traceback` last where there is one.

    Whatever is not ASCII is escaped, so no text ends a line or commands a terminal.
    """

    converter = staticmethod(time.gmtime)

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": _stamp(self, record),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            **_fields(record),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


class Refusals(logging.Filter):
    """Logs a request that Django or gunicorn refuses as one line: the kind of refusal and nothing of the request.

    They quote what they refuse, Django with a traceback: any client could fill the log with its own text, or its
    secrets could get there. This is for Django 5.2 (core/handlers/exception.py) and gunicorn 27 (workers/base.py).
    """

    def filter(self, record: logging.LogRecord) -> bool:
        if record.name.startswith("django.security."):
            why = record.name.rpartition(".")[2]
            hint = ": its Host is not in QUIKTRADE_ALLOWED_HOSTS" if why == "DisallowedHost" else ""
            _say(record, f"Request refused{hint}", why)
        elif record.name == "gunicorn.error" and str(record.msg).startswith("Invalid request from ip="):
            _say(record, "Request refused", type(sys.exc_info()[1]).__name__)
        elif record.name == "gunicorn.error" and str(record.msg).startswith("Error handling request"):
            record.msg, record.args = "Request not answered", ()  # the traceback stays
        return True


def _say(record: logging.LogRecord, sentence: str, why: str) -> None:
    record.msg, record.args, record.exc_info = sentence, (), None
    record.levelno, record.levelname = logging.WARNING, "WARNING"
    vars(record).pop("status_code", None)
    record.event, record.why = "web.refused", why


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    return {key: value for key, value in vars(record).items() if key not in _STANDARD}


def _stamp(formatter: logging.Formatter, record: logging.LogRecord) -> str:
    return f"{formatter.formatTime(record, '%Y-%m-%dT%H:%M:%S')}.{int(record.msecs):03d}Z"


def _quoted(value: object) -> str:
    text = str(value)
    return json.dumps(text) if not text or any(c.isspace() or c in '"=' for c in text) else text
