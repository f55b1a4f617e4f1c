"""gunicorn's settings, for `up`, Docker and everyone else. The command line says where to listen: --bind.

Read for gunicorn 27: arbiter.py and glogging.py.
"""

import logging
import os
import sys
from typing import Any

from quiktrade import memory, processes
from quiktrade.logs import FieldFormatter, Refusals
from quiktrade.web_worker import Worker


def _count(name: str, default: int) -> int:
    text = os.environ.get(name, "").strip() or str(default)
    if not text.isdecimal() or int(text) < 1:
        sys.stderr.write(f"{name} must be a whole number, 1 or more\n")  # it is not repeated: see settings.py
        sys.exit(2)
    return int(text)


wsgi_app = "quiktrade.wsgi:application"
worker_class = Worker
workers = _count("QUIKTRADE_WEB_WORKERS", 2)
threads = _count("QUIKTRADE_WEB_THREADS", 4)
Worker.most_in_hand = max(threads, _count("QUIKTRADE_WEB_IN_HAND", Worker.most_in_hand))
sendfile = False  # an answer leaves in one piece, from memory
# Seconds an idle connection stays open: longer than clients and proxies keep one (a minute or two as a rule, ten in
# some clouds), so that it is they who close it, and no close of ours crosses a request. If there are too many
# connections, those that have been idle longest go first.
keepalive = 620
graceful_timeout = 10  # seconds for the requests under way when it is told to stop
# gunicorn would believe these headers of whoever connects from this machine, or by a Unix socket. What a proxy says is
# for Django to believe, where QUIKTRADE_BEHIND_PROXY is on.
secure_scheme_headers: dict[str, str] = {}
forwarder_headers = ""
control_socket_disable = True  # else gunicorn makes one in the home directory
if os.path.isdir("/dev/shm"):  # noqa: S108
    worker_tmp_dir = "/dev/shm"  # noqa: S108  a heartbeat on a slow disk gets a healthy worker killed


def on_starting(server: Any) -> None:
    processes.forget_inherited_signals()
    processes.end_with_parent()


def post_worker_init(worker: Any) -> None:
    """Import now what the first request would."""
    import quiktrade.urls  # noqa: F401

    memory.settle()


def nworkers_changed(server: Any, new: int, old: int | None) -> None:
    """Give gunicorn's log our form. The first hook of a start and of a reload: both make new handlers."""
    for handler in server.log.error_log.handlers:
        handler.setFormatter(FieldFormatter())
        handler.addFilter(_without_needless_traceback)
        handler.addFilter(Refusals())


def _without_needless_traceback(record: logging.LogRecord) -> bool:
    error = record.exc_info[1] if record.exc_info else None
    # By name: this process stays while its workers are replaced, so it imports nothing that they are to read anew.
    if type(error).__name__ == "ImproperlyConfigured":
        record.msg, record.args, record.exc_info = str(error), (), None
    return True
