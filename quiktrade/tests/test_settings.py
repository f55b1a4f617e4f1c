"""Settings are read once, when a process starts; so every case here is a separate process."""

import json
import os
import re
import runpy
import stat
import subprocess
import sys
import traceback
from pathlib import Path
from typing import Any

import psycopg
import pytest

from benchmarks.stage.ports import free_ports
from quiktrade.local.venv import ROOT

PRODUCTION = {
    "QUIKTRADE_ENV": "production",
    "QUIKTRADE_SECRET_KEY": "kF0v-9sYbWq3tR7uXz2LmNc5PdHj8GaE1oTiVyUxQ4rKeZlMwB6",
    "QUIKTRADE_ALLOWED_HOSTS": "quiktrade.example.com, .desk.example.com",
    "DATABASE_URL": "postgresql://quiktrade:p%40ss@db.example.com:6432/orders?sslmode=verify-full",
}

SHOW = """
import json, sys
from quiktrade import settings
print(json.dumps({name: getattr(settings, name) for name in sys.argv[1:]}))
"""


def run(environment: dict[str, str], *names: str) -> subprocess.CompletedProcess[str]:
    """Read the settings in an environment that has these variables and no others of ours."""
    return start(["-c", SHOW, *names], environment)


def start(command: list[str], environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *command],
        cwd=ROOT,
        env={"PATH": os.defpath, **environment},
        capture_output=True,
        text=True,
        timeout=60,
    )


def read(environment: dict[str, str], *names: str) -> dict[str, Any]:
    done = run(environment, *names)
    assert done.returncode == 0, done.stderr
    values: dict[str, Any] = json.loads(done.stdout)
    return values


def refusal(environment: dict[str, str]) -> str:
    """The last line of the output of a process that does not start."""
    done = run(environment)
    assert done.returncode != 0
    kind, _, text = done.stderr.strip().splitlines()[-1].partition(": ")
    assert kind.endswith("ImproperlyConfigured")
    return text


def test_production_starts_with_a_key_host_names_and_a_database() -> None:
    names = [
        "DEBUG",
        "ALLOWED_HOSTS",
        "SECURE_SSL_REDIRECT",
        "SESSION_COOKIE_SECURE",
        "CSRF_COOKIE_SECURE",
        "DATABASES",
    ]
    values = read(PRODUCTION, *names)
    assert values["DEBUG"] is False
    assert values["ALLOWED_HOSTS"] == ["quiktrade.example.com", ".desk.example.com"]
    assert values["SECURE_SSL_REDIRECT"] is values["SESSION_COOKIE_SECURE"] is values["CSRF_COOKIE_SECURE"] is True
    database = values["DATABASES"]["default"]
    assert (database["USER"], database["PASSWORD"], database["NAME"]) == ("quiktrade", "p@ss", "orders")
    assert (database["HOST"], database["PORT"]) == ("db.example.com", "6432")
    assert database["OPTIONS"]["sslmode"] == "verify-full"


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("QUIKTRADE_SECRET_KEY", "", "Production needs QUIKTRADE_SECRET_KEY"),
        ("QUIKTRADE_SECRET_KEY", "kF0v-9sYbWq3tR7uXz2LmNc5PdHj8GaE1oTiVyUxQ4rKeZlMw", "shorter than 50 characters"),
        ("QUIKTRADE_SECRET_KEY", "django-insecure-" + "x" * 50, "a development secret"),
        ("QUIKTRADE_SECRET_KEY", "Change-me-" + "x" * 50, "a development secret"),
        ("QUIKTRADE_DEBUG", "1", "QUIKTRADE_DEBUG is on"),
        ("QUIKTRADE_ALLOWED_HOSTS", "", "Production needs QUIKTRADE_ALLOWED_HOSTS"),
        ("QUIKTRADE_ALLOWED_HOSTS", " , ", "Production needs QUIKTRADE_ALLOWED_HOSTS"),
        ("DATABASE_URL", "", "Production needs DATABASE_URL"),
    ],
)
def test_production_refuses_what_is_missing_or_meant_for_development(variable: str, value: str, said: str) -> None:
    assert said in refusal({**PRODUCTION, variable: value})


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("QUIKTRADE_ENV", "staging"),
        ("QUIKTRADE_DEBUG", "maybe"),
        ("QUIKTRADE_WORKERS", "many"),
        ("QUIKTRADE_WORKERS", "2"),
        ("QUIKTRADE_WORKERS", "3.5"),
        ("QUIKTRADE_LEASE_SECONDS", "0"),
        ("QUIKTRADE_LEASE_SECONDS", "nan"),
        ("QUIKTRADE_LEASE_SECONDS", "inf"),
        ("QUIKTRADE_SECRET_KEY_FILE", "/nowhere/secret_key"),
        ("QUIKTRADE_TOKEN_RATE", "often"),
        ("QUIKTRADE_TOKEN_RATE", "0/min"),
        ("QUIKTRADE_ORDER_RATE", "1000001"),
        ("QUIKTRADE_READ_RATE", "1e11"),
        ("QUIKTRADE_LOG_LEVEL", "LOUD"),
        ("QUIKTRADE_LOG_FORMAT", "xml"),
        ("QUIKTRADE_METRICS_PORT", "70000"),
        ("QUIKTRADE_METRICS_HOST", "everywhere"),
        ("QUIKTRADE_CSRF_TRUSTED_ORIGINS", "https://desk.example.com,quiktrade.example.com"),
        ("DATABASE_URL", "mysql://db.example.com/orders"),
        ("DATABASE_REPLICA_URL", "mysql://db.example.com/orders"),
    ],
)
def test_a_value_that_cannot_be_used_is_refused_by_the_name_of_its_variable(
    variable: str, value: str, tmp_path: Path
) -> None:
    assert variable in refusal({"QUIKTRADE_DATA": str(tmp_path), variable: value})


def test_a_replica_has_a_pool_in_every_process_and_gets_no_tables() -> None:
    url = "postgresql://reader@a,b/orders?load_balance_hosts=random"
    values = read({**PRODUCTION, "DATABASE_REPLICA_URL": url}, "DATABASES", "DATABASE_ROUTERS")
    replica = values["DATABASES"]["replica"]
    assert (replica["USER"], replica["HOST"], replica["NAME"]) == ("reader", "a,b", "orders")
    assert (replica["OPTIONS"]["load_balance_hosts"], replica["OPTIONS"]["pool"]["max_size"]) == ("random", 8)
    assert values["DATABASE_ROUTERS"] == ["quiktrade.database.replica.Router"]
    assert list(read(PRODUCTION, "DATABASES")["DATABASES"]) == ["default"]


@pytest.mark.parametrize(
    ("variable", "value", "command"),
    [
        ("QUIKTRADE_ENV", "staging", "help"),
        ("QUIKTRADE_ENV", "staging", "up"),
        ("QUIKTRADE_LEASE_SECONDS", "abc", "check"),
        ("DATABASE_URL", "mysql://db.example.com/orders", "migrate"),
    ],
)
def test_a_command_says_it_in_one_line(variable: str, value: str, command: str, tmp_path: Path) -> None:
    done = start(["manage.py", command], {"QUIKTRADE_DATA": str(tmp_path), variable: value})
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert done.stderr.startswith(variable)


@pytest.mark.parametrize("variable", ["QUIKTRADE_WEB_WORKERS", "QUIKTRADE_LEASE_SECONDS"])
def test_gunicorn_ends_and_says_it_without_a_traceback(variable: str, tmp_path: Path) -> None:
    command = ["-m", "gunicorn", "--config", "quiktrade/web/gunicorn.py", "--bind", f"127.0.0.1:{free_ports(1)[0]}"]
    # One worker, because gunicorn's master mistakes the second of two that end at once for its own error.
    done = start(command, {"QUIKTRADE_DATA": str(tmp_path), "QUIKTRADE_WEB_WORKERS": "1", variable: "abc"})
    assert done.returncode != 0
    assert f"{variable} must be" in done.stderr
    assert "Traceback" not in done.stderr


MARK = "Zx7SECRET9q"
BROKEN = (MARK, f"{MARK} {MARK}", f"%{MARK}", f"/{MARK}/{MARK}", f"é{MARK}\udcff")
BROKEN_URLS = (
    f"postgresql://u:{MARK}%pw@127.0.0.1:9/db",
    f"postgresql://u:a%{MARK}@127.0.0.1:9/db",
    f"postgresql://u:{MARK} x@127.0.0.1:9/db",
    f"postgresql://u:a@{MARK}@127.0.0.1:9/db",
    f"postgresql://u:a/{MARK}@127.0.0.1:9/db",
    f"postgresql://u:12/{MARK}@127.0.0.1:9/db",
    f"postgresql://u:a:{MARK}@127.0.0.1:9/db",
    f"postgresql://u:a?{MARK}@127.0.0.1:9/db",
    f"postgresql://u:a#{MARK}@127.0.0.1:9/db",
    f"postgresql://u:[{MARK}@127.0.0.1:9/db",
    f"postgresql://u:a@[{MARK}/db",
    f"postgresql://u:{MARK}",
    f"postgresql://127.0.0.1:9/db?user=u&password={MARK}&",
    f"postgresql://127.0.0.1:9/db?{MARK}",
    f"postgresql://127.0.0.1:9/db?{MARK}=1",
    f"postgresql://u:{MARK}@127.0.0.1:9/db",
    f"mysql://u:{MARK}@127.0.0.1/db",
    f"host=127.0.0.1 port=9 password=a {MARK}",
    f"host=127.0.0.1 port=9 password='{MARK}",
    f"host=127.0.0.1 port=9 passwort={MARK}",
    f"host=127.0.0.1 port=9 password={MARK}",
)
URLS = {"DATABASE_URL": "default", "DATABASE_REPLICA_URL": "replica"}
NO_SECRETS = {"QUIKTRADE_DATA", "QUIKTRADE_STATIC_ROOT"}
"""These are folders, which an error names if they cannot be used."""


def variables() -> list[str]:
    table = (ROOT / "docs/configuration.md").read_text()
    return sorted({*re.findall(r"QUIKTRADE_[A-Z_]+[A-Z]", table), *URLS} - NO_SECRETS)


@pytest.mark.parametrize("variable", variables())
@pytest.mark.parametrize("program", ["settings", "web/gunicorn"])
def test_no_setting_is_repeated_in_what_is_said_of_it(
    variable: str, program: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    for name in [name for name in os.environ if name.startswith(("QUIKTRADE_", "DATABASE_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("QUIKTRADE_DATA", str(tmp_path))
    for value in (*BROKEN, *(BROKEN_URLS if variable in URLS else ())):
        monkeypatch.setenv(variable, value)
        try:
            made = runpy.run_path(str(ROOT / "quiktrade" / f"{program}.py"))
            if variable in URLS and program == "settings":
                connect(made["DATABASES"][URLS[variable]])
        except (Exception, SystemExit) as error:
            said = "".join(traceback.format_exception(error))
            assert MARK not in said, value
    printed = capfd.readouterr()
    assert MARK not in printed.out + printed.err


def test_a_password_that_is_read_as_a_databases_name_is_refused(tmp_path: Path) -> None:
    for url in (f"postgresql://u:12/{MARK}@127.0.0.1:9/db", "postgresql://u:123456789"):
        assert "not a PostgreSQL address" in refusal({"QUIKTRADE_DATA": str(tmp_path), "DATABASE_URL": url})


def connect(database: dict[str, Any]) -> None:
    """As Django would. A string that can be read leads somewhere, and what is wrong there is said of that."""
    names = {"HOST": "host", "PORT": "port", "USER": "user", "PASSWORD": "password", "NAME": "dbname"}
    given = {option: database[name] for name, option in names.items() if database[name]}
    ours = ("prepare_threshold", "pool")
    options = {name: value for name, value in database["OPTIONS"].items() if name not in ours}
    psycopg.connect(**{**given, **options, "connect_timeout": 2})


def test_no_program_prints_a_password(tmp_path: Path) -> None:
    environment = {"QUIKTRADE_DATA": str(tmp_path), "DATABASE_URL": BROKEN_URLS[0], "QUIKTRADE_WEB_WORKERS": "1"}
    bind = f"127.0.0.1:{free_ports(1)[0]}"
    for command in (
        ["manage.py", "check"],
        ["manage.py", "up"],
        ["-m", "gunicorn", "--config", "quiktrade/web/gunicorn.py", "--bind", bind],
    ):
        done = start(command, environment)
        assert done.returncode != 0
        assert "DATABASE_URL is not a PostgreSQL address" in done.stderr
        assert MARK not in done.stdout + done.stderr


def test_without_any_variable_only_loopback_names_are_answered(tmp_path: Path) -> None:
    values = read({"QUIKTRADE_DATA": str(tmp_path)}, "ALLOWED_HOSTS", "DEBUG")
    assert values == {"ALLOWED_HOSTS": ["localhost", "127.0.0.1", "[::1]"], "DEBUG": False}


def test_a_local_secret_key_is_made_once_and_for_its_owner_only(tmp_path: Path) -> None:
    environment = {"QUIKTRADE_DATA": str(tmp_path / "new")}
    made = read(environment, "SECRET_KEY")["SECRET_KEY"]
    assert len(made) >= 50
    assert read(environment, "SECRET_KEY")["SECRET_KEY"] == made
    (file,) = (tmp_path / "new").iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_a_secret_key_is_read_from_the_file_that_is_named(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text(PRODUCTION["QUIKTRADE_SECRET_KEY"] + "\n")
    environment = {**PRODUCTION, "QUIKTRADE_SECRET_KEY": "", "QUIKTRADE_SECRET_KEY_FILE": str(file)}
    assert read(environment, "SECRET_KEY")["SECRET_KEY"] == PRODUCTION["QUIKTRADE_SECRET_KEY"]


def test_the_documentation_lists_every_variable() -> None:
    # What our processes tell each other, and what the tests and the laboratory set.
    own = {"HEARTBEAT_FILE", "INSTALLED_JUST_NOW", "LIFELINE", "CRASH_AT", "LABORATORY"}
    sources = [*ROOT.glob("quiktrade/**/*.py"), *ROOT.glob("exchanges/**/*.py"), *ROOT.glob("orders/**/*.py")]
    sources = [path for path in sources if "tests" not in path.parts]
    texts = [path.read_text() for path in (*sources, ROOT / "docker-compose.yml", ROOT / "Dockerfile")]
    used = {name for text in texts for name in re.findall(r"QUIKTRADE_[A-Z_]+[A-Z]", text)}
    table = (ROOT / "docs/configuration.md").read_text()
    assert used - {f"QUIKTRADE_{name}" for name in own} == set(re.findall(r"QUIKTRADE_[A-Z_]+", table))
