"""No message quotes a secret: it says where something is wrong, and not what the value is."""

import logging
import os
import subprocess
import sys
from datetime import timedelta
from typing import Any

import pytest
from django.test import Client
from rest_framework.test import APIClient

from exchanges.registry import open_venue
from orders.tests.factories import UserFactory
from quiktrade.auth import clients
from quiktrade.local.venv import ROOT
from quiktrade.models import Session
from quiktrade.tests.test_api_errors import PASSWORD, TOKEN, bearing

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


@pytest.mark.exhaustive
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


@pytest.mark.django_db
def test_nothing_that_opens_an_account_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    api = APIClient()
    alice = UserFactory(username="alice", password=PASSWORD)
    bot = clients.create(user=alice, name="bot", scope="stream")
    secret = clients.add_secret(bot)
    pair = api.post(TOKEN, {"username": "alice", "password": PASSWORD}).json()

    def ask(path: str, body: dict[str, Any]) -> int:
        return api.post(path, body).status_code

    assert ask(f"{TOKEN}/refresh", {"refresh": pair["refresh"]}) == 200
    Session.objects.update(refreshed_at=Session.objects.get().refreshed_at - timedelta(minutes=1))
    assert ask(f"{TOKEN}/refresh", {"refresh": pair["refresh"]}) == 401  # reuse, which is logged
    credentials = {"grant_type": "client_credentials", "client_id": bot.pk}
    assert ask("/api/v1/auth/client-token", {**credentials, "client_secret": secret}) == 200
    assert ask("/api/v1/auth/client-token", {**credentials, "client_secret": f"{secret}x"}) == 401
    for _ in range(8):  # until it is refused, which is logged
        ask(TOKEN, {"username": MARK, "password": "wrong-and-secret"})
        Client().post("/admin/login/", {"username": MARK, "password": "wrong-and-secret"})
    bearing(pair["access"]).post("/api/v1/auth/password", {"old_password": PASSWORD, "new_password": "short-1"})

    said = " ".join(str(vars(record)) for record in caplog.records)
    assert "auth.refresh_reused" in said
    assert "auth.log_in_refused" in said
    for hidden in (PASSWORD, "wrong-and-secret", MARK, pair["access"], pair["refresh"], secret, "short-1"):
        assert hidden not in said
