"""gunicorn's settings, for `up`, Docker and everyone else. The command line says where to listen: --bind.

There are two web services of one code base, and QUIKTRADE_SERVICE says which one this is. `api` (the default) serves
the clients, with greenlets. `console` serves the operators, with threads: no client has to wait for the work of a page.

This is written for gunicorn 27 (its arbiter.py and glogging.py).
"""

import logging
import os
import resource
import sys
from typing import Any

from gunicorn.glogging import Logger as GunicornLogger

from quiktrade import memory, processes
from quiktrade.logs import Refusals, formatter
from quiktrade.metrics import place


def _refuse(name: str, needed: str) -> None:
    sys.stderr.write(f"{name} must be {needed}\n")  # its value is not repeated: see settings.py
    sys.exit(2)


def _count(name: str, default: int) -> int:
    text = os.environ.get(name, "").strip() or str(default)
    if not text.isdecimal() or int(text) < 1:
        _refuse(name, "a whole number, 1 or more")
    return int(text)


_service = os.environ.get("QUIKTRADE_SERVICE", "").strip() or "api"
if _service not in ("api", "console"):
    _refuse("QUIKTRADE_SERVICE", "api or console")
raw_env = [f"QUIKTRADE_SERVICE={_service}"]
wsgi_app = "quiktrade.wsgi:application"
if _service == "api":
    worker_class = "quiktrade.web.worker.Worker"
    workers = _count("QUIKTRADE_WEB_WORKERS", 2)
    # The connections of each process. A client that sends or reads slowly keeps one for half a minute. If there are
    # more, those that have been idle longest are closed.
    worker_connections = 4000
else:
    worker_class = "gthread"
    workers = 1
    threads = _count("QUIKTRADE_WEB_THREADS", 4)
# Seconds an idle connection stays open: longer than clients and proxies keep one (a minute or two as a rule, ten in
# some clouds), so that they close it, and we never close a connection on which a request is just arriving.
keepalive = 620
graceful_timeout = 10  # seconds for the requests in flight when it is told to stop
sendfile = False  # it would wait for a slow reader of a static file without a limit
# gunicorn would trust these headers from anybody who connects from this machine or by a Unix socket. Only Django may
# trust the headers of a proxy, if QUIKTRADE_BEHIND_PROXY is on.
secure_scheme_headers: dict[str, str] = {}
forwarder_headers = ""
control_socket_disable = True  # otherwise gunicorn makes one in the home directory
if os.path.isdir("/dev/shm"):  # noqa: S108
    worker_tmp_dir = "/dev/shm"  # noqa: S108  a heartbeat on a slow disk gets a healthy worker killed


def on_starting(server: Any) -> None:
    processes.forget_inherited_signals()
    processes.end_with_parent()
    place.hold()
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # each connection is an open file


def post_worker_init(worker: Any) -> None:
    """Import now what the first request would import."""
    import quiktrade.urls  # noqa: F401
    from quiktrade.alerts import watch
    from quiktrade.metrics import listener
    from quiktrade.tracing import spans

    listener.serve()
    watch.serve(getattr(worker.wsgi, "counts", None))
    spans.start(_service)
    memory.settle()


def worker_exit(server: Any, worker: Any) -> None:
    from quiktrade.tracing import spans

    spans.end()


class logger_class(GunicornLogger):  # type: ignore[misc]
    """gunicorn's logger, with our format. gunicorn finds this class by its name."""

    def setup(self, cfg: Any) -> None:
        super().setup(cfg)
        for handler in self.error_log.handlers:
            handler.setFormatter(formatter())
            handler.addFilter(_without_needless_traceback)
            handler.addFilter(Refusals())


def _without_needless_traceback(record: logging.LogRecord) -> bool:
    error = record.exc_info[1] if record.exc_info else None
    # It is compared by name: this process stays while its workers are replaced, so it must import nothing that they
    # have to read again.
    if type(error).__name__ == "ImproperlyConfigured":
        record.msg, record.args, record.exc_info = str(error), (), None
    return True
