"""Log lines that read well and parse well: a constant sentence, then `key=value` fields."""

import json
import logging
import sys
import time

from quiktrade.texts import shown

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class FieldFormatter(logging.Formatter):
    """`2026-01-31T09:30:00.123Z WARNING orders.engine Order not sent order_id=… venue=XSIM`, time in UTC."""

    converter = staticmethod(time.gmtime)

    def format(self, record: logging.LogRecord) -> str:
        fields = {key: value for key, value in vars(record).items() if key not in _STANDARD}
        # "request" is an object that Django attaches for its own handlers
        text = " ".join(f"{key}={_quoted(value)}" for key, value in fields.items() if key != "request")
        stamp = self.formatTime(record, "%Y-%m-%dT%H:%M:%S")
        line = f"{stamp}.{int(record.msecs):03d}Z {record.levelname} {record.name} {record.getMessage()}"
        line = shown(f"{line} {text}" if text else line)
        if record.exc_info:
            line += "\n" + shown(self.formatException(record.exc_info), but="\n\t")
        return line


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


def _quoted(value: object) -> str:
    text = str(value)
    return json.dumps(text) if not text or any(c.isspace() or c in '"=' for c in text) else text
