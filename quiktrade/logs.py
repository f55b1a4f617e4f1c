"""Log lines that read well and parse well: a constant sentence, then `key=value` fields."""

import json
import logging
import time

from exchanges.texts import shown

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


def _quoted(value: object) -> str:
    text = str(value)
    return json.dumps(text) if not text or any(c.isspace() or c in '"=' for c in text) else text
