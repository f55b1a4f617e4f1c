"""Django settings. Everything a deployment may change is an environment variable, listed in
docs/configuration.md.

`QUIKTRADE_ENV=local`, the default, answers only on loopback host names and makes its own secret key.
`QUIKTRADE_ENV=production` refuses to start without a real secret key, host names and a database, or with
debugging on.
"""

import os
import re
import secrets
import socket
import tomllib
from datetime import timedelta
from importlib.util import find_spec
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Any

from django.core.exceptions import ImproperlyConfigured
from psycopg.conninfo import conninfo_to_dict

from quiktrade.alerts import channels
from quiktrade.database import replica
from quiktrade.database.connection import OPTIONS
from quiktrade.local.postgres import lease
from quiktrade.tracing import spans

BASE_DIR = Path(__file__).resolve().parent.parent
VERSION: str = tomllib.loads((BASE_DIR / "pyproject.toml").read_text("utf-8"))["project"]["version"]


# ---- Reading the environment. An error names the variable and never repeats its value, which may be a secret. ----


def env(name: str, default: str) -> str:
    return os.environ.get(name, "").strip() or default


def env_bool(name: str, default: bool) -> bool:
    text = env(name, "1" if default else "0").lower()
    if text in ("1", "true", "yes", "on"):
        return True
    if text in ("0", "false", "no", "off"):
        return False
    raise ImproperlyConfigured(f"{name} must be 1 or 0")


def env_number(name: str, default: float, *, minimum: float) -> float:
    text = env(name, str(default))
    try:
        number = float(text)
    except ValueError:
        raise ImproperlyConfigured(f"{name} must be a number") from None
    if not minimum <= number < float("inf"):
        raise ImproperlyConfigured(f"{name} must be a number, {minimum:g} or more")
    return number


def env_int(name: str, default: int, *, minimum: int, maximum: int | None = None) -> int:
    number = env_number(name, default, minimum=minimum)
    if number != int(number):
        raise ImproperlyConfigured(f"{name} must be a whole number")
    if maximum is not None and number > maximum:
        raise ImproperlyConfigured(f"{name} must be at most {maximum}")
    return int(number)


def env_list(name: str, default: str) -> list[str]:
    return [item.strip() for item in env(name, default).split(",") if item.strip()]


def env_networks(name: str) -> list[IPv4Network | IPv6Network]:
    try:
        return [ip_network(item) for item in env_list(name, "")]
    except ValueError:
        raise ImproperlyConfigured(f"{name} must be networks such as 10.1.0.0/16, several by commas") from None


def env_ports(name: str, default: str) -> set[int]:
    ports = env_list(name, default)
    if not all(re.fullmatch(r"[1-9][0-9]{0,4}", port) and int(port) <= 65535 for port in ports):
        raise ImproperlyConfigured(f"{name} must be port numbers, several by commas")
    return set(map(int, ports))


def env_match(name: str, default: str, pattern: str, needed: str) -> str:
    text = env(name, default)
    if not re.fullmatch(pattern, text):
        raise ImproperlyConfigured(f"{name} must be {needed}")
    return text


# ---- Environment, secrets ----

ENVIRONMENT = env("QUIKTRADE_ENV", "local")
if ENVIRONMENT not in ("local", "production"):
    raise ImproperlyConfigured("QUIKTRADE_ENV must be local or production")
PRODUCTION = ENVIRONMENT == "production"
DATA_DIR = Path(env("QUIKTRADE_DATA", str(BASE_DIR / ".data")))

DEBUG = env_bool("QUIKTRADE_DEBUG", False)
if PRODUCTION and DEBUG:
    raise ImproperlyConfigured("QUIKTRADE_DEBUG is on; production does not start with it. Unset it.")

_DEVELOPMENT_SECRETS = ("django-insecure", "change-me", "changeme", "development", "secret", "insecure")


def _made_secret_key(path: Path) -> str:
    """Return this checkout's own key. It is made at the first use, and only its owner can read it."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_suffix(f".{os.getpid()}")
        draft.touch(mode=0o600)
        draft.write_text(secrets.token_urlsafe(48))
        try:
            os.link(draft, path)  # unlike a rename, this never replaces a key that another process made meanwhile
        except FileExistsError:
            pass
        draft.unlink()
    return path.read_text().strip()


def _secret_key() -> str:
    if key := env("QUIKTRADE_SECRET_KEY", ""):
        return key
    if name := env("QUIKTRADE_SECRET_KEY_FILE", ""):
        try:
            return Path(name).read_text().strip()
        except (OSError, ValueError) as error:  # ValueError: the file is not text
            why = getattr(error, "strerror", None) or "it cannot be read"
            raise ImproperlyConfigured(f"The file that QUIKTRADE_SECRET_KEY_FILE names: {why}") from None
    if PRODUCTION:
        raise ImproperlyConfigured(
            "Production needs QUIKTRADE_SECRET_KEY (50 random characters or more) or QUIKTRADE_SECRET_KEY_FILE. "
            'Make one: python3 -c "import secrets; print(secrets.token_urlsafe(48))"'
        )
    try:
        return _made_secret_key(DATA_DIR / "secret_key")
    except OSError as error:
        raise ImproperlyConfigured(f"Cannot make a secret key in {DATA_DIR}: {error.strerror}") from None


SECRET_KEY = _secret_key()
if PRODUCTION and (len(SECRET_KEY) < 50 or SECRET_KEY.lower().startswith(_DEVELOPMENT_SECRETS)):
    raise ImproperlyConfigured(
        "QUIKTRADE_SECRET_KEY is a development secret or shorter than 50 characters; production does not start with it."
    )

SECRET_KEY_FALLBACKS = env_list("QUIKTRADE_SECRET_KEY_FALLBACKS", "")
"""Earlier secret keys, which sign and encrypt nothing any more."""

# ---- Hosts and transport ----

ALLOWED_HOSTS = env_list("QUIKTRADE_ALLOWED_HOSTS", "" if PRODUCTION else "localhost,127.0.0.1,[::1]")
if PRODUCTION and not ALLOWED_HOSTS:
    raise ImproperlyConfigured("Production needs QUIKTRADE_ALLOWED_HOSTS: the host names clients use, by comma.")
CSRF_TRUSTED_ORIGINS = env_list("QUIKTRADE_CSRF_TRUSTED_ORIGINS", "")
for _origin in CSRF_TRUSTED_ORIGINS:
    if not re.fullmatch(r"https?://[^/]+", _origin):
        raise ImproperlyConfigured("QUIKTRADE_CSRF_TRUSTED_ORIGINS must be like https://host, several by commas")
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = SECURE_SSL_REDIRECT = PRODUCTION
SECURE_HSTS_SECONDS = 31_536_000 if PRODUCTION else 0
SECURE_HSTS_INCLUDE_SUBDOMAINS = SECURE_HSTS_PRELOAD = PRODUCTION
if env_bool("QUIKTRADE_BEHIND_PROXY", False):  # the proxy must set this header itself and drop a client's
    SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
SESSION_COOKIE_AGE = 12 * 3600  # an operator's shift
X_FRAME_OPTIONS = "DENY"

# ---- Applications ----

INSTALLED_APPS = [
    "unfold",
    "unfold.contrib.filters",
    "django.contrib.admin.apps.SimpleAdminConfig",  # urls.py finds the console's pages; a worker needs none
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "rest_framework",
    "drf_spectacular",
    "drf_spectacular_sidecar",
    "quiktrade",  # before django_q, whose qcluster command it replaces
    "orders",
    "exchanges",
    "django_q",
]
if find_spec("benchmarks"):  # for `manage.py chaos`; the image does not contain it
    INSTALLED_APPS.append("benchmarks")
SERVICE = env_match("QUIKTRADE_SERVICE", "all", "api|console|all", "api or console")
"""Which of the two web services this process is. Commands and workers are neither: `all` has the URLs of both."""

_CONSOLE_ONLY = [
    "quiktrade.api.middleware.no_nul_in_the_console",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django_otp.middleware.OTPMiddleware",
    "quiktrade.console.second_factor.required",
    "django.contrib.messages.middleware.MessageMiddleware",
]
MIDDLEWARE = [
    "quiktrade.api.middleware.probes",
    "quiktrade.api.context.known",
    "quiktrade.api.middleware.measured",
    "quiktrade.api.middleware.deprecation",
    "quiktrade.api.middleware.optional_trailing_slash",
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "quiktrade.api.middleware.content_security_policy",
    "django.middleware.common.CommonMiddleware",
    *([] if SERVICE == "api" else _CONSOLE_ONLY),  # in the API a token identifies the client
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]
APPEND_SLASH = False  # a redirect would turn a POST into a GET; both forms are answered
ROOT_URLCONF = "quiktrade.urls"
WSGI_APPLICATION = "quiktrade.wsgi.application"
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
        },
    }
]
LANGUAGE_CODE = "en-us"
TIME_ZONE = "UTC"
USE_TZ = True
FORMAT_MODULE_PATH = ["quiktrade.formats"]  # the console's times: to the second, in UTC
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

STATIC_URL = "/static/"
# Set in the image, where the files are collected and named by their content. A checkout serves them in place.
STATIC_ROOT = env("QUIKTRADE_STATIC_ROOT", "") or None
_STATIC_STORAGE = "whitenoise.storage.CompressedManifestStaticFilesStorage"
STORAGES = {
    "staticfiles": {
        "BACKEND": _STATIC_STORAGE if STATIC_ROOT else "django.contrib.staticfiles.storage.StaticFilesStorage"
    },
}
WHITENOISE_USE_FINDERS = STATIC_ROOT is None

# ---- Database ----


_NO_DATABASE_URL = (
    "{} is not a PostgreSQL address. It is not shown here, for it may hold a password. Write "
    "postgresql://USER:PASSWORD@HOST:PORT/NAME; in the password %, @, /, :, ?, # and blanks are written %25, %40, %2F, "
    "%3A, %3F, %23 and %20."
)


def _database(url: str, variable: str) -> dict[str, Any]:
    """Django's settings for a libpq URL or connection string, with every libpq option in it."""
    try:
        given = conninfo_to_dict(url)
    except Exception:  # its message quotes what it cannot read, which may be the password
        raise ImproperlyConfigured(_NO_DATABASE_URL.format(variable)) from None
    ports, name = str(given.get("port", "")).split(","), str(given.get("dbname", ""))
    wrong_port = any(port and not (re.fullmatch(r"[0-9]{1,5}", port) and int(port) <= 65535) for port in ports)
    host = str(given.get("host", "")).rpartition("/")[2]
    if wrong_port or "@" in host or ("://" in url and "@" in name):  # then part of the password was read as an address
        raise ImproperlyConfigured(_NO_DATABASE_URL.format(variable))
    names = {"NAME": "dbname", "USER": "user", "PASSWORD": "password", "HOST": "host", "PORT": "port"}
    return {
        "ENGINE": "quiktrade.database",
        **{setting: str(given.pop(option, "")) for setting, option in names.items()},
        "CONN_MAX_AGE": 600,
        "CONN_HEALTH_CHECKS": True,
        # With Django's default, None, database/statements.py could prepare nothing.
        "OPTIONS": {**OPTIONS, **given, "prepare_threshold": 5},
    }


if PRODUCTION and not env("DATABASE_URL", ""):
    raise ImproperlyConfigured("Production needs DATABASE_URL, for example postgresql://user:password@host/quiktrade")
DATABASES = {"default": _database(env("DATABASE_URL", "") or lease.url(), "DATABASE_URL")}

WEB_CONNECTIONS = env_int("QUIKTRADE_WEB_CONNECTIONS", 8, minimum=2)
"""Connections to the database, which all requests of one API process share. It may have as many to the replica."""

if _replica_url := env("DATABASE_REPLICA_URL", ""):
    DATABASES[replica.ALIAS] = replica.settings(
        _database(_replica_url, "DATABASE_REPLICA_URL"), most_connections=WEB_CONNECTIONS
    )
    DATABASE_ROUTERS = ["quiktrade.database.replica.Router"]

WEB_CLIENT_SECONDS = env_number("QUIKTRADE_WEB_CLIENT_SECONDS", 30, minimum=1)
"""How long a request of the API may take to arrive, and an answer to be read. A batch of 1 MiB takes 9 s to arrive on a
line of 1 Mbit/s."""
WEB_IN_HAND = env_int("QUIKTRADE_WEB_IN_HAND", 32, minimum=1)
"""At most this many requests are served at the same time in one API process."""
WEB_IN_HAND_OF_CLIENT = env_int("QUIKTRADE_WEB_IN_HAND_OF_CLIENT", 0, minimum=0)
"""At most this many of them with the same token; 0: any number."""
WEB_STREAMS = env_int("QUIKTRADE_WEB_STREAMS", 2000, minimum=1)
"""At most this many clients follow their orders on a stream of one API process. Each keeps a connection."""

# ---- Accounts and tokens ----

if SERVICE != "all":
    PASSWORD_HASHERS = [f"quiktrade.auth.{'hashers.AsideHasher' if SERVICE == 'api' else 'turns.ConsoleHasher'}"]
AUTHENTICATION_BACKENDS = ["quiktrade.auth.guard.GuardedBackend"]

AUTH_PASSWORD_VALIDATORS = [
    {"NAME": f"django.contrib.auth.password_validation.{name}"}
    for name in (
        "UserAttributeSimilarityValidator",
        "MinimumLengthValidator",
        "CommonPasswordValidator",
        "NumericPasswordValidator",
    )
]
_SECOND_FACTOR = "required" if PRODUCTION else "optional"
SECOND_FACTOR = env_match("QUIKTRADE_SECOND_FACTOR", _SECOND_FACTOR, "optional|required", "optional or required")
"""Whether everybody who works in the console must have a second factor."""
_ACCESS_TOKEN_MINUTES = env_number("QUIKTRADE_ACCESS_TOKEN_MINUTES", 5, minimum=1)
LOGIN_REDIRECT_URL = "admin:index"  # for a log-in that names no page, which only the console has
SIMPLE_JWT = {
    "ACCESS_TOKEN_LIFETIME": timedelta(minutes=_ACCESS_TOKEN_MINUTES),
    "REFRESH_TOKEN_LIFETIME": timedelta(days=env_number("QUIKTRADE_REFRESH_TOKEN_DAYS", 7, minimum=1)),
    "UPDATE_LAST_LOGIN": False,  # it would cost a write per token, and nothing reads it
    "CHECK_REVOKE_TOKEN": True,  # a changed password ends the tokens that were issued before
    "LEEWAY": 5,  # seconds: a token is not refused because the node that made it has a clock that is ahead
}

# ---- API ----

_RATE = r"[1-9][0-9]*/(s|sec|second|m|min|minute|h|hour|d|day)"
_TOKEN_RATE = env_match("QUIKTRADE_TOKEN_RATE", "30/min", _RATE, "30/min or the like")

REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": ["quiktrade.auth.authentication.TokenAuthentication"],
    "DEFAULT_PERMISSION_CLASSES": [
        "rest_framework.permissions.IsAuthenticated",
        "quiktrade.auth.scopes.HasScope",
    ],
    "DEFAULT_PARSER_CLASSES": ["quiktrade.api.parsers.StrictJSONParser"],
    "DEFAULT_RENDERER_CLASSES": ["quiktrade.api.renderers.FastJSONRenderer"],
    "DEFAULT_CONTENT_NEGOTIATION_CLASS": "quiktrade.api.negotiation.JSONFirst",
    "DEFAULT_METADATA_CLASS": "quiktrade.api.negotiation.NoMetadata",
    "DEFAULT_SCHEMA_CLASS": "quiktrade.api.openapi.Operation",
    "EXCEPTION_HANDLER": "quiktrade.api.problems.exception_handler",
    "DEFAULT_THROTTLE_CLASSES": ["quiktrade.limits.ReadThrottle"],
    "DEFAULT_THROTTLE_RATES": {"token": _TOKEN_RATE},  # per address, to slow the guessing of passwords
    "NUM_PROXIES": 1 if env_bool("QUIKTRADE_BEHIND_PROXY", False) else 0,
    "COERCE_DECIMAL_TO_STRING": True,
    "URL_FORMAT_OVERRIDE": None,
    "TEST_REQUEST_DEFAULT_FORMAT": "json",
}
API_ROUTERS = ("orders.api.urls.router", "exchanges.api.urls.router", "orders.webhooks.api.urls.router")
"""What `/api/v1/` offers besides tokens and its own description."""
MOST_PER_SECOND = 1_000_000
ORDER_RATE = env_int("QUIKTRADE_ORDER_RATE", 0, minimum=0, maximum=MOST_PER_SECOND)
READ_RATE = env_int("QUIKTRADE_READ_RATE", 0, minimum=0, maximum=MOST_PER_SECOND)
"""Orders, and reads, that a client may send in a second, if an operator has not decided otherwise for it; 0: any."""
API_MAX_BODY_BYTES = env_int("QUIKTRADE_MAX_BODY_BYTES", 65_536, minimum=1_024)
API_MAX_BATCH_BYTES = 16 * API_MAX_BODY_BYTES  # for 500 orders, each with every field and some spaces
SPECTACULAR_SETTINGS = {
    "TITLE": "QuikTrade",
    "VERSION": VERSION,
    "DESCRIPTION": (
        "Submit orders for shares; QuikTrade stores each one durably and places it at its venue exactly once in effect."
        "\n\n**To begin**, get a token: `POST /api/v1/auth/token` with your name and password answers with `access`, "
        f"valid for {_ACCESS_TOKEN_MINUTES:g} minutes, and with `refresh`, which "
        "`POST /api/v1/auth/token/refresh` exchanges for a new pair. Every other request carries the `access` token in "
        "the header `Authorization: Bearer …`. To try requests out on a page with the *Authorize* button, press it and "
        "paste the token there.\n\n"
        "Accounts are made by an operator, in the console. On an empty database `manage.py up` makes two to try it, "
        "`alice` and `bob`, and prints their passwords once; `docker compose up` has them in the log of `migrate`."
    ),
    "SERVERS": [{"url": "/", "description": "Where this document came from."}],
    "TAGS": [
        {"name": "auth", "description": "Tokens: the first step."},
        {"name": "orders", "description": "Submit, list, read and cancel your own orders."},
        {"name": "webhooks", "description": "Have your order events sent to addresses of yours."},
        {"name": "venues", "description": "Where orders can go, and which orders each venue takes."},
    ],
    "APPEND_COMPONENTS": {"securitySchemes": {"clientSecret": {"type": "http", "scheme": "basic"}}},
    "SERVE_INCLUDE_SCHEMA": False,
    "SWAGGER_UI_DIST": "SIDECAR",
    "SWAGGER_UI_FAVICON_HREF": "SIDECAR",
    "REDOC_DIST": "SIDECAR",
    "COMPONENT_SPLIT_REQUEST": True,
    "SCHEMA_PATH_PREFIX": r"/api/v1",
    "SORT_OPERATIONS": False,
    "POSTPROCESSING_HOOKS": [
        "quiktrade.api.openapi.sort_methods",
        "drf_spectacular.hooks.postprocess_schema_enums",
        "quiktrade.api.openapi.name_enums",
        "quiktrade.api.openapi.mark_extensible_enums",
        "quiktrade.api.openapi.add_links",
        "quiktrade.api.openapi.add_problems",
    ],
    "ENUM_GENERATE_CHOICE_DESCRIPTION": False,  # it would say "`buy` - Buy"
    "ENUM_NAME_OVERRIDES": {
        "Actor": ["client", "operator", "system", "venue"],
        "EventType": "orders.webhooks.bodies.EVENT_TYPES",
        "OrderType": "orders.models.OrderType",
        "Side": "orders.models.Side",
        "Status": "orders.models.Status",
        "TimeInForce": "orders.models.TimeInForce",
    },
}

# ---- Orders and their placement (durations in seconds) ----

ORDER_ISIN_CHECK = env_bool("QUIKTRADE_ISIN_CHECK", True)
"""Whether an instrument must be a valid ISIN. If not, any 12 characters A-Z 0-9 will do, as a venue's own codes."""

PLACEMENT_LEASE_SECONDS = env_number("QUIKTRADE_LEASE_SECONDS", 30, minimum=1)
"""How long an attempt may take before the order counts as unconfirmed. It must exceed every venue's deadline."""

PLACEMENT_MAX_ATTEMPTS = env_int("QUIKTRADE_MAX_ATTEMPTS", 10, minimum=1)
PLACEMENT_BACKOFF_BASE_SECONDS = env_number("QUIKTRADE_BACKOFF_BASE_SECONDS", 0.5, minimum=0.001)
PLACEMENT_BACKOFF_CAP_SECONDS = env_number("QUIKTRADE_BACKOFF_CAP_SECONDS", 60, minimum=0.001)
"""With these values ten attempts wait 92 s on average and 183 s at most before an order is `failed`."""

PLACEMENT_DRAIN_SECONDS = 20
"""A placement job claims for this long and then hands over. That bounds what a redelivered job could repeat."""

PLACEMENT_LINGER_SECONDS = 0.2
"""An idle job waits this long for the next order, so that 20 orders/s keep one job busy instead of starting 20."""

# ---- Retention ----

KEEP_DAYS = env_int("QUIKTRADE_KEEP_DAYS", 0, minimum=0)
"""Orders that ended more than this many days ago are moved to the archive; 0: none is."""
if 0 < KEEP_DAYS < 8:
    raise ImproperlyConfigured(
        "QUIKTRADE_KEEP_DAYS must be 0, for no archive, or 8 or more: clients may come back for the events of 7 days"
    )
KEEP_KEYS_DAYS = env_int("QUIKTRADE_KEEP_KEYS_DAYS", 0, minimum=0)
"""The clients' own ids of a month of orders are free again if the month is dropped from the archive, and ended more
than this many days ago; 0: a client's own id is never free again."""
if 0 < KEEP_KEYS_DAYS < KEEP_DAYS:
    raise ImproperlyConfigured("QUIKTRADE_KEEP_KEYS_DAYS must be 0, for ever, or QUIKTRADE_KEEP_DAYS or more")
MOVE_RATE = env_number("QUIKTRADE_MOVE_RATE", 500, minimum=1)
"""The job moves at most this many orders a second."""

MOVE_RUN_SECONDS = 5
"""Once a minute a job moves orders for this long. It occupies a process meanwhile that others may need: those that ask
venues about orders."""

# ---- Webhooks ----

WEBHOOK_ALLOW = env_networks("QUIKTRADE_WEBHOOK_ALLOW")
"""Networks to which webhooks may be sent although their addresses are not public."""
WEBHOOK_PORTS = env_ports("QUIKTRADE_WEBHOOK_PORTS", "443,8443" if PRODUCTION else "")
"""The ports to which webhooks may be sent. None: any port."""

WEBHOOK_RUN_SECONDS = 40
"""A job that delivers webhooks claims for this long. With its last requests that is less than the jobs' time-out."""

WEBHOOK_LINGER_SECONDS = 1
"""An idle one waits this long for the next event."""

# ---- Background jobs ----

# These are for django-q2 1.11. A comment says what its source does with the value.
Q_CLUSTER = {
    "name": "quiktrade",
    "broker_class": "quiktrade.jobs.broker.PostgresBroker",
    "orm": "default",  # the alias that the broker and the admin's queue page read
    "workers": env_int("QUIKTRADE_WORKERS", 4, minimum=3),  # one places, one hands over, two run the other jobs
    "queue_limit": 4,  # bounds the local queue, so that a cluster that has stopped working stops claiming too
    "bulk": 4,
    "timeout": 60,  # > PLACEMENT_DRAIN_SECONDS + the longest venue deadline: no ordinary job reaches it
    "retry": 120,  # > timeout, or a running job would be handed out again
    "ack_failures": True,  # a failed job is not repeated for ever: its orders' own rows make them due again
    "max_attempts": 1,
    "save_limit": -1,  # successes are not saved: each would cost 5 statements, for a row that nobody reads
    "catch_up": False,  # after an outage a schedule runs once, not once for each time that it missed
    "recycle": 10_000,
    "log_level": "WARNING",
    "time_zone": "UTC",
}
JOBS_DEMAND = "orders.tasks.demand"
"""This function says which jobs the order rows need now. The job cluster calls it (see quiktrade/jobs/broker.py)."""

JOBS_DUE = "orders.selectors.placement_due"
"""This function says in how many seconds the next order is due. `/readyz` calls it."""

JOBS_PRELOAD = "orders.tasks.preload"
JOBS_WARM_UP = "orders.tasks.warm_up"
"""The job cluster calls the first before it forks, and the second in each worker process."""

JOBS_CHANNEL = "quiktrade_orders"
FEED_CHANNEL = "quiktrade_events"
"""The PostgreSQL NOTIFY channels of quiktrade/jobs/doorbell.py: orders may be due, and orders have new events."""

NODE_NAME = env("QUIKTRADE_NODE", socket.gethostname())
"""The name of this worker node among those that share the database."""

JOBS_HEARTBEAT_SECONDS = 2.0
JOBS_STALE_SECONDS = env_number("QUIKTRADE_STALE_SECONDS", 15, minimum=5)
"""A cluster without a heartbeat for this long is replaced by its watchdog and counted as dead by /readyz."""

# ---- Metrics ----

METRICS_PORT = env_int("QUIKTRADE_METRICS_PORT", 0, minimum=0)
"""The port at which one process of this machine answers GET /metrics; 0: metrics are off."""
if METRICS_PORT > 65535:
    raise ImproperlyConfigured("QUIKTRADE_METRICS_PORT must be a port number, 65535 at most, or 0")
METRICS_HOST = env_match("QUIKTRADE_METRICS_HOST", "127.0.0.1", r"[0-9A-Fa-f.:]+", "an IP address of this machine")
"""What is told there needs no token, so only Prometheus should reach it."""
METRICS_GAUGES = (
    "quiktrade.metrics.gauges.database",
    "orders.gauges.venues",
    "orders.gauges.attention",
    "orders.gauges.told",
    "quiktrade.alerts.gauges.incidents",
)
"""These functions read the gauges that come from rows."""

# ---- Alerts: who is told of trouble (quiktrade/alerts) ----

ALERTS_ALLOW = env_networks("QUIKTRADE_ALERTS_ALLOW")
"""Networks to which alerts may be sent although their addresses are not public."""
_SCHEMES = ("https",) if PRODUCTION else ("https", "http")
try:
    ALERTS = channels.read(env("QUIKTRADE_ALERTS", ""), schemes=_SCHEMES, networks=ALERTS_ALLOW)
    _MAIL = channels.read_mail(env("QUIKTRADE_SMTP", ""))
except channels.Refused as _refused:
    raise ImproperlyConfigured(str(_refused)) from None
if any(_channel.kind == channels.MAIL for _channel in ALERTS) and _MAIL is None:
    raise ImproperlyConfigured("QUIKTRADE_ALERTS has a mail address, so QUIKTRADE_SMTP must name the mail server")
if _MAIL is not None:
    EMAIL_HOST, EMAIL_PORT, EMAIL_HOST_USER, EMAIL_HOST_PASSWORD = _MAIL.host, _MAIL.port, _MAIL.user, _MAIL.password
    EMAIL_USE_TLS, EMAIL_USE_SSL = _MAIL.starttls, _MAIL.tls
DEFAULT_FROM_EMAIL = env_match(
    "QUIKTRADE_MAIL_FROM", f"quiktrade@{NODE_NAME}", r"[^\s@,<>]+@[^\s@,<>]+", "a mail address"
)
ALERT_JUDGES = ("quiktrade.alerts.system.JUDGES", "orders.alerts.JUDGES")
"""These know what is wrong (quiktrade/alerts/judging.py)."""
# ---- Traces: quiktrade/tracing reads the standard's own variables, and what is wrong with them is said here ----


def _is_installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # not even the packages that it is in
        return False


if spans.asked_for():
    if not _is_installed("opentelemetry.exporter.otlp.proto.http"):
        raise ImproperlyConfigured(
            "OTEL_EXPORTER_OTLP_ENDPOINT is set, and OpenTelemetry is not installed. Install it with pip install -r "
            "requirements-traces.lock, or unset the variable."
        )
    for _name in spans.ENDPOINTS:
        env_match(_name, "", r"(https?://\S+)?", "an address http://… or https://…")
    for _name in ("OTEL_EXPORTER_OTLP_PROTOCOL", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL"):
        env_match(_name, "http/protobuf", "http/protobuf", "http/protobuf: spans are sent in no other way")
    env_match(
        "OTEL_TRACES_SAMPLER",
        "parentbased_traceidratio",
        "(parentbased_)?(always_on|always_off|traceidratio)",
        "one of parentbased_traceidratio, parentbased_always_on, parentbased_always_off, traceidratio, always_on and "
        "always_off",
    )
    if env_number("OTEL_TRACES_SAMPLER_ARG", 0.01, minimum=0) > 1:
        raise ImproperlyConfigured("OTEL_TRACES_SAMPLER_ARG must be a number from 0 to 1")
    env_int("OTEL_BSP_SCHEDULE_DELAY", 5000, minimum=1)
    if env_int("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", 1, minimum=1) > env_int("OTEL_BSP_MAX_QUEUE_SIZE", 2048, minimum=1):
        raise ImproperlyConfigured("OTEL_BSP_MAX_EXPORT_BATCH_SIZE must be at most OTEL_BSP_MAX_QUEUE_SIZE")
TRACE_URL = env_match(
    "QUIKTRADE_TRACE_URL", "", r"(https?://\S*\{trace_id\}\S*)?", "an address https://… with {trace_id} in it"
)
"""Where the console's link to the trace of an order leads."""

# ---- Reports of venues ----

SESSION_LEASE_SECONDS = env_number("QUIKTRADE_SESSION_LEASE_SECONDS", 5, minimum=1)
"""A session that reads a venue's reports and is silent for this long is replaced by another node's. It must be longer
than the writing of a batch takes."""

SESSIONS_READ = "orders.selectors.reports_unread_for"
"""This function says for how many seconds nobody has read the reports of a venue. `/readyz` calls it."""

# ---- Console, and what fills an empty database ----

DEMO = "exchanges.demo"
"""This module makes the venue and the accounts with which `manage.py up` begins."""

UNFOLD: dict[str, Any] = {
    "SITE_TITLE": "QuikTrade",
    "SITE_HEADER": "QuikTrade",
    "SITE_SUBHEADER": "orders.admin.overview.headline",
    "SITE_SYMBOL": "swap_vert",
    "SITE_URL": None,
    "SITE_FAVICONS": [{"rel": "icon", "type": "image/svg+xml", "href": "quiktrade.console.site.icon"}],
    "ENVIRONMENT": "quiktrade.console.site.environment",
    "SHOW_HISTORY": True,
    "SHOW_VIEW_ON_SITE": False,
    "STYLES": ["quiktrade.console.site.stylesheet"],
    "SCRIPTS": ["quiktrade.console.site.script"],
    "LOGIN": {"form": "quiktrade.console.log_in.LogInForm"},
    "ACCOUNT": {"navigation": "quiktrade.console.site.own_account"},
    "DASHBOARD_CALLBACK": "orders.admin.overview.first_page",
    "SIDEBAR": {"navigation": "orders.admin.overview.navigation"},
}

# ---- Logging: a constant sentence, then fields ----

_LEVELS = "DEBUG|INFO|WARNING|ERROR|CRITICAL"
LOG_LEVEL = env_match("QUIKTRADE_LOG_LEVEL", "INFO", _LEVELS, "DEBUG, INFO, WARNING, ERROR or CRITICAL")
env_match("QUIKTRADE_LOG_FORMAT", "plain", "plain|json", "plain or json")  # quiktrade/logs.py reads it

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"fields": {"()": "quiktrade.logs.formatter"}},
    "filters": {"refusals": {"()": "quiktrade.logs.Refusals"}, "of_request": {"()": "quiktrade.api.context.OfRequest"}},
    "handlers": {
        "stderr": {"class": "logging.StreamHandler", "formatter": "fields", "filters": ["refusals", "of_request"]}
    },
    "root": {"handlers": ["stderr"], "level": LOG_LEVEL},
    "loggers": {
        "django-q": {"level": "WARNING"},
        "django.request": {"level": "ERROR"},  # a 4xx is the client's error
        "aiohttp.access": {"level": "WARNING"},
        "opentelemetry": {"level": "CRITICAL"},  # quiktrade.tracing says in a line of its own what is lost
        "urllib3": {"level": "WARNING"},
    },
}
