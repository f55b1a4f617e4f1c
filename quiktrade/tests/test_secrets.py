"""No message quotes a secret: it says where something is wrong, and not what the value is."""

import os
import subprocess
import sys

import pytest

from exchanges.registry import open_venue
from quiktrade.local.venv import ROOT

MARK = "S3CRET"


def said(*command: str, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, *command],
        cwd=ROOT,
        env={**os.environ, "DJANGO_SETTINGS_MODULE": "quiktrade.settings", **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode != 0
    return done.stdout + done.stderr


@pytest.mark.parametrize(
    "url",
    [
        f"postgresql://u:{MARK}%pw@h/db",
        f"postgresql://u:{MARK} pw@h/db",
        f"postgresql://u:p@{MARK}@h/db",
        f"postgresql://u:{MARK}/p@h/db",
        f"postgresql://u:{MARK}@[h/db",
        f"host=h password={MARK} x",
        f"host=h password='{MARK}",
        f"mysql://u:{MARK}@h/db",
    ],
)
def test_an_address_of_the_database_that_cannot_be_read_is_not_repeated(url: str) -> None:
    output = said("manage.py", "check", DATABASE_URL=url)
    assert "DATABASE_URL" in output
    assert MARK not in output
    assert "Traceback" not in output


def test_a_secret_key_is_repeated_nowhere() -> None:
    production = {
        "QUIKTRADE_ENV": "production",
        "QUIKTRADE_ALLOWED_HOSTS": "h",
        "DATABASE_URL": f"postgresql://u:{MARK}@h/db",
    }
    for wrong in ({"QUIKTRADE_SECRET_KEY": f"{MARK}-short"}, {"QUIKTRADE_SECRET_KEY_FILE": f"/nowhere/{MARK}"}):
        output = said("manage.py", "check", **production, **wrong)
        assert "QUIKTRADE_SECRET_KEY" in output
        assert MARK not in output


def test_a_database_that_refuses_the_password_is_told_without_it() -> None:
    output = said("manage.py", "migrate", DATABASE_URL=f"postgresql://u:{MARK}@127.0.0.1:9/db")
    assert MARK not in output


@pytest.mark.parametrize("name", ["url", "timeout_seconds", "in_flight", "resend_safety", "duplicate_window_seconds"])
def test_a_venues_setting_that_is_wrong_is_named_and_not_repeated(name: str) -> None:
    settings = {"url": "http://127.0.0.1:9", name: f"http://u:{MARK}@h"}
    if name == "duplicate_window_seconds":
        settings["resend_safety"] = "refuses_recent_duplicates"
    with pytest.raises(ValueError, match=name) as refused:
        open_venue("simulator", settings)
    assert MARK not in str(refused.value)
