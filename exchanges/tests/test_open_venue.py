"""Making the simulator's adapter from a venue row's settings."""

from typing import Any

import pytest

from exchanges.registry import ADAPTERS, capabilities_of, open_venue
from exchanges.venue import ResendSafety

URL = "http://127.0.0.1:8765"


def test_the_address_is_all_it_needs() -> None:
    capabilities = capabilities_of("simulator", {"url": URL})
    assert capabilities.resend_safety is ResendSafety.REFUSES_DUPLICATES
    assert (capabilities.deadline_seconds, capabilities.settle_seconds) == (5.0, 2.0)
    assert capabilities.duplicate_window_seconds is None


@pytest.mark.parametrize("safety", list(ResendSafety))
def test_it_can_stand_for_every_class_of_venue(safety: ResendSafety) -> None:
    settings: dict[str, Any] = {"url": URL, "resend_safety": safety.value}
    if safety is ResendSafety.REFUSES_RECENT_DUPLICATES:
        settings["duplicate_window_seconds"] = 15
    capabilities = capabilities_of("simulator", settings)
    assert capabilities.resend_safety is safety
    assert capabilities.duplicate_window_seconds == settings.get("duplicate_window_seconds")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("url", None),
        ("url", 8765),
        ("url", ""),
        ("url", "127.0.0.1:8765"),
        ("url", "ftp://127.0.0.1"),
        ("url", "http://"),
        ("url", "http://host:99999"),
        ("url", "http://user:secret@host"),
        ("url", "http://host/?a=1"),
        ("timeout_seconds", 0),
        ("timeout_seconds", "5"),
        ("timeout_seconds", True),
        ("timeout_seconds", float("nan")),
        ("timeout_seconds", float("inf")),
        ("settle_seconds", 0),
        ("settle_seconds", -1),
        ("in_flight", 0),
        ("in_flight", 1.5),
        ("in_flight", True),
        ("resend_safety", "A"),
        ("resend_safety", ["nothing"]),
        ("resend_safety", "refuses_recent_duplicates"),
        ("duplicate_window_seconds", 15),
        ("time_out", 5),
    ],
)
def test_a_setting_that_will_not_do_is_named(key: str, value: Any) -> None:
    named = "duplicate_window_seconds" if value == "refuses_recent_duplicates" else key
    with pytest.raises(ValueError, match=named):
        open_venue("simulator", {"url": URL} | {key: value})


@pytest.mark.parametrize(
    "key", ["url", "timeout_seconds", "settle_seconds", "in_flight", "resend_safety", "duplicate_window_seconds"]
)
@pytest.mark.parametrize("value", ["a secret", ["a secret"], {"a secret": 1}, "http://user:a secret@host"])
def test_a_secret_in_a_setting_is_not_repeated(key: str, value: object) -> None:
    safety = {"resend_safety": "refuses_recent_duplicates"} if key == "duplicate_window_seconds" else {}
    with pytest.raises(ValueError, match=key) as raised:
        open_venue("simulator", {"url": URL} | safety | {key: value})
    assert "secret" not in str(raised.value)


def test_a_secret_is_not_repeated_when_an_adapter_fails_over_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ADAPTERS, "other", lambda settings: settings["a secret"])
    with pytest.raises(ValueError, match=r"cannot use these settings \(KeyError\)"):
        open_venue("other", {})


def test_an_adapter_that_is_not_installed_is_named() -> None:
    with pytest.raises(LookupError, match="'nasdaq'; installed: simulator"):
        open_venue("nasdaq", {})
