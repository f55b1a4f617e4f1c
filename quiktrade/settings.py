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
from pathlib import Path
from typing import Any

from django.core.exceptions import ImproperlyConfigured
from psycopg.conninfo import conninfo_to_dict

from quiktrade.database.connection import OPTIONS
from quiktrade.local.postgres import lease

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


def env_int(name: str, default: int, *, minimum: int) -> int:
    number = env_number(name, default, minimum=minimum)
    if number != int(number):
        raise ImproperlyConfigured(f"{name} must be a whole number")
    return int(number)


def env_list(name: str, default: str) -> list[str]:
    return [item.strip() for item in env(name, default).split(",") if item.strip()]


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
    "rest_framework_simplejwt.token_blacklist",
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
    "django.contrib.messages.middleware.MessageMiddleware",
]
MIDDLEWARE = [
    "quiktrade.api.middleware.probes",
    "quiktrade.api.middleware.optional_trailing_slash",
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
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
    "DATABASE_URL is not a PostgreSQL address. It is not shown here, for it may hold a password. Write "
    "postgresql://USER:PASSWORD@HOST:PORT/NAME; in the password %, @, /, :, ?, # and blanks are written %25, %40, %2F, "
    "%3A, %3F, %23 and %20."
)


def _database(url: str) -> dict[str, Any]:
    """Django's settings for a libpq URL or connection string, with every libpq option in it."""
    try:
        given = conninfo_to_dict(url)
    except Exception:  # its message quotes what it cannot read, which may be the password
        raise ImproperlyConfigured(_NO_DATABASE_URL) from None
    ports, name = str(given.get("port", "")).split(","), str(given.get("dbname", ""))
    wrong_port = any(port and not (re.fullmatch(r"[0-9]{1,5}", port) and int(port) <= 65535) for port in ports)
    host = str(given.get("host", "")).rpartition("/")[2]
    if wrong_port or "@" in host or ("://" in url and "@" in name):  # then part of the password was read as an address
        raise ImproperlyConfigured(_NO_DATABASE_URL)
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
DATABASES = {"default": _database(env("DATABASE_URL", "") or lease.url())}

WEB_CONNECTIONS = env_int("QUIKTRADE_WEB_CONNECTIONS", 8, minimum=2)
"""Connections to the database, which all requests of one API process share."""

WEB_CLIENT_SECONDS = env_number("QUIKTRADE_WEB_CLIENT_SECONDS", 30, minimum=1)
"""How long a request of the API may take to arrive, and an answer to be read. A batch of 1 MiB takes 9 s to arrive on a
line of 1 Mbit/s."""
WEB_IN_HAND = env_int("QUIKTRADE_WEB_IN_HAND", 32, minimum=1)
"""At most this many requests are served at the same time in one API process."""

# ---- Accounts and tokens ----

if SERVICE == "api":
    PASSWORD_HASHERS = ["quiktrade.auth.hashers.AsideHasher"]

AUTH_PASSWORD_VALIDATORS = [
    {"NAME": f"django.contrib.auth.password_validation.{name}"}
    for name in (
        "UserAttributeSimilarityValidator",
        "MinimumLengthValidator",
        "CommonPasswordValidator",
        "NumericPasswordValidator",
    )
]
_ACCESS_TOKEN_MINUTES = env_number("QUIKTRADE_ACCESS_TOKEN_MINUTES", 15, minimum=1)
LOGIN_REDIRECT_URL = "admin:index"  # for a log-in that names no page, which only the console has
SIMPLE_JWT = {
    "ACCESS_TOKEN_LIFETIME": timedelta(minutes=_ACCESS_TOKEN_MINUTES),
    "REFRESH_TOKEN_LIFETIME": timedelta(days=env_number("QUIKTRADE_REFRESH_TOKEN_DAYS", 7, minimum=1)),
    "ROTATE_REFRESH_TOKENS": True,
    "BLACKLIST_AFTER_ROTATION": True,
    "UPDATE_LAST_LOGIN": False,  # it would cost a write per token, and nothing reads it
    "CHECK_REVOKE_TOKEN": True,  # a changed password ends the tokens that were issued before
    "LEEWAY": 5,  # seconds: a token is not refused because the node that made it has a clock that is ahead
}

# ---- API ----

_RATE = r"[1-9][0-9]*/(s|sec|second|m|min|minute|h|hour|d|day)"
_TOKEN_RATE = env_match("QUIKTRADE_TOKEN_RATE", "30/min", _RATE, "30/min or the like")

REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": ["quiktrade.auth.authentication.TokenAuthentication"],
    "DEFAULT_PERMISSION_CLASSES": ["rest_framework.permissions.IsAuthenticated"],
    "DEFAULT_PARSER_CLASSES": ["quiktrade.api.parsers.StrictJSONParser"],
    "DEFAULT_RENDERER_CLASSES": ["quiktrade.api.renderers.FastJSONRenderer"],
    "DEFAULT_CONTENT_NEGOTIATION_CLASS": "quiktrade.api.negotiation.JSONFirst",
    "DEFAULT_METADATA_CLASS": "quiktrade.api.negotiation.NoMetadata",
    "DEFAULT_SCHEMA_CLASS": "drf_spectacular.openapi.AutoSchema",
    "EXCEPTION_HANDLER": "quiktrade.api.problems.exception_handler",
    "DEFAULT_THROTTLE_RATES": {"token": _TOKEN_RATE},  # per address, to slow the guessing of passwords
    "NUM_PROXIES": 1 if env_bool("QUIKTRADE_BEHIND_PROXY", False) else 0,
    "COERCE_DECIMAL_TO_STRING": True,
    "URL_FORMAT_OVERRIDE": None,
    "TEST_REQUEST_DEFAULT_FORMAT": "json",
}
API_ROUTERS = ("orders.api.urls.router", "exchanges.api.urls.router")
"""What `/api/v1/` offers besides tokens and its own description."""
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
        {"name": "venues", "description": "Where orders can go, and which orders each venue takes."},
    ],
    "SERVE_INCLUDE_SCHEMA": False,
    "SWAGGER_UI_DIST": "SIDECAR",
    "SWAGGER_UI_FAVICON_HREF": "SIDECAR",
    "REDOC_DIST": "SIDECAR",
    "COMPONENT_SPLIT_REQUEST": True,
    "SCHEMA_PATH_PREFIX": r"/api/v1",
    "SORT_OPERATIONS": False,
    "POSTPROCESSING_HOOKS": [
        "drf_spectacular.hooks.postprocess_schema_enums",
        "quiktrade.api.openapi.name_enums",
        "quiktrade.api.openapi.add_problems",
    ],
    "ENUM_GENERATE_CHOICE_DESCRIPTION": False,  # it would say "`buy` - Buy"
    "ENUM_NAME_OVERRIDES": {
        "Actor": ["client", "operator", "system"],
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
"""The PostgreSQL NOTIFY channel of quiktrade/jobs/doorbell.py."""

NODE_NAME = env("QUIKTRADE_NODE", socket.gethostname())
"""The name of this worker node among those that share the database."""

JOBS_HEARTBEAT_SECONDS = 2.0
JOBS_STALE_SECONDS = env_number("QUIKTRADE_STALE_SECONDS", 15, minimum=5)
"""A cluster without a heartbeat for this long is replaced by its watchdog and counted as dead by /readyz."""

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
    "DASHBOARD_CALLBACK": "orders.admin.overview.first_page",
    "SIDEBAR": {"navigation": "orders.admin.overview.navigation"},
}

# ---- Logging: a constant sentence, then fields ----

_LEVELS = "DEBUG|INFO|WARNING|ERROR|CRITICAL"
LOG_LEVEL = env_match("QUIKTRADE_LOG_LEVEL", "INFO", _LEVELS, "DEBUG, INFO, WARNING, ERROR or CRITICAL")

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"fields": {"()": "quiktrade.logs.FieldFormatter"}},
    "filters": {"refusals": {"()": "quiktrade.logs.Refusals"}},
    "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "fields", "filters": ["refusals"]}},
    "root": {"handlers": ["stderr"], "level": LOG_LEVEL},
    "loggers": {
        "django-q": {"level": "WARNING"},
        "django.request": {"level": "ERROR"},  # a 4xx is the client's error
        "aiohttp.access": {"level": "WARNING"},
    },
}
