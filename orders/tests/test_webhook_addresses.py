"""Which addresses webhooks may have: every private one is refused where the socket is made, and at registration."""

import asyncio
import json
import os
import socket
import subprocess
import sys
from ipaddress import ip_network
from typing import Any

import pytest
from rest_framework.test import APIClient

from orders.engine import DatabaseThread
from orders.tests.factories import OrderFactory, UserFactory
from orders.tests.receiver import Receiver, running_receiver
from orders.webhooks import delivery, services
from orders.webhooks.addresses import UrlRefused, check_url, is_allowed
from orders.webhooks.delivery import Deliverer
from quiktrade.local.venv import ROOT
from quiktrade.public_addresses import NOT_PUBLIC

FORMS = [
    "http://127.0.0.1:{port}/",
    "http://localhost:{port}/",
    "http://[::1]:{port}/",
    "http://0.0.0.0:{port}/",
    "http://2130706433:{port}/",
    "http://127.1:{port}/",
    "http://0x7f000001:{port}/",
    "http://[::ffff:127.0.0.1]:{port}/",
    "http://169.254.169.254/",
    "http://[64:ff9b::7f00:1]:{port}/",
    "http://10.0.0.1/",
    "http://100.64.0.1/",
    "http://[fd00::1]/",
]
"""The forms of a private address: loopback in every spelling, link-local, private, shared, unique local."""


def deliver() -> None:
    async def run() -> None:
        claims, records = DatabaseThread("claims"), DatabaseThread("records")
        await Deliverer(claims, records).run(seconds=20)
        await claims.close()
        await records.close()

    asyncio.run(run())


@pytest.mark.django_db
@pytest.mark.parametrize("form", FORMS)
def test_a_private_address_is_refused_at_registration(alice: APIClient, form: str) -> None:
    answer = alice.post("/api/v1/webhooks", {"url": form.format(port=8443)})
    assert answer.status_code == 400
    (error,) = answer.json()["errors"]
    assert (error["pointer"], error["code"]) == ("#/url", "invalid_url")
    assert error["detail"].startswith(NOT_PUBLIC)


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("form", FORMS)
def test_a_private_address_is_refused_where_the_socket_is_made(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As if it had slipped through at registration, or a name led there."""
    monkeypatch.setattr(delivery, "check_url", lambda url: url)
    made: list[Any] = []
    real = socket.socket.connect

    def connect(self: socket.socket, to: Any) -> None:
        made.append(to)
        real(self, to)

    monkeypatch.setattr(socket.socket, "connect", connect)
    with running_receiver() as receiver:
        endpoint = services.create_endpoint(UserFactory().pk, url=form.format(port=receiver.port))
        OrderFactory(owner=endpoint.owner)
        deliver()
        assert receiver.received == []
    failed = endpoint.deliveries.get()
    assert (failed.status, failed.last_code) == ("pending", None)
    assert not [to for to in made if isinstance(to, tuple) and to[1] == receiver.port]


@pytest.mark.django_db(transaction=True)
def test_a_name_that_leads_elsewhere_later_is_judged_when_it_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    with running_receiver() as receiver:
        found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", receiver.port))]
        real = socket.getaddrinfo
        monkeypatch.setattr(
            socket, "getaddrinfo", lambda host, *a, **k: found if host == "rebound.example" else real(host, *a, **k)
        )
        endpoint = services.create_endpoint(UserFactory().pk, url=check_url(f"http://rebound.example:{receiver.port}/"))
        OrderFactory(owner=endpoint.owner)
        deliver()
        assert receiver.received == []
    assert endpoint.deliveries.get().last_text == NOT_PUBLIC


@pytest.mark.django_db(transaction=True)
def test_a_network_that_is_allowed_is_reached(settings: Any) -> None:
    settings.WEBHOOK_ALLOW = [ip_network("127.0.0.0/8")]
    with running_receiver() as receiver:
        endpoint = services.create_endpoint(UserFactory().pk, url=check_url(receiver.url))
        OrderFactory(owner=endpoint.owner)
        deliver()
        assert isinstance(receiver, Receiver)
        assert len(receiver.received) == 1


@pytest.mark.parametrize(
    ("address", "allowed"),
    [
        ("93.184.216.34", True),
        ("2606:2800:220:1:248:1893:25c8:1946", True),
        ("::ffff:93.184.216.34", True),
        ("64:ff9b::5db8:d822", True),
        ("127.0.0.1", False),
        ("10.255.255.255", False),
        ("172.16.0.1", False),
        ("192.168.0.1", False),
        ("169.254.169.254", False),
        ("100.64.0.1", False),
        ("0.0.0.0", False),
        ("255.255.255.255", False),
        ("224.0.0.1", False),
        ("192.0.2.1", False),
        ("::", False),
        ("::1", False),
        ("::127.0.0.1", False),
        ("::ffff:10.0.0.1", False),
        ("64:ff9b::a00:1", False),
        ("64:ff9b:1::a00:1", False),
        ("2002:7f00:1::", False),
        ("2001:0:7f00:1::", False),
        ("fe80::1%eth0", False),
        ("fc00::1", False),
        ("ff02::1", False),
        ("2001:db8::1", False),
    ],
)
def test_only_public_addresses_are_allowed(address: str, allowed: bool) -> None:
    assert is_allowed(address) is allowed


def test_an_allowed_network_counts_in_every_spelling(settings: Any) -> None:
    settings.WEBHOOK_ALLOW = [ip_network("10.1.0.0/16"), ip_network("fd00::/8")]
    assert is_allowed("10.1.2.3")
    assert is_allowed("::ffff:10.1.2.3")
    assert is_allowed("fd00::1")
    assert not is_allowed("10.2.0.1")


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("ftp://example.com/", "begins with https:// or http://"),
        ("example.com", "begins with https:// or http://"),
        ("", "begins with"),
        ("https:///path", "begins with"),
        ("https://user:password@example.com/", "user name or password"),
        ("https://user@example.com/", "user name or password"),
        ("https://example.com/#part", "fragment"),
        ("https://exam ple.com/", "without blanks"),
        ("https://example.com/\n", "without blanks"),
        ("https://example.com:99999/", "not a URL"),
        ("https://[::1/", "not a URL"),
        ("https://example.com/" + "x" * 1000, "at most 1000"),
        ("https://LOCALHOST./", "not a public one"),
        ("https://a.localhost/", "not a public one"),
        ("http://0177.0.0.1/", "not a public one"),
        ("http://①②⑦.0.0.1/", "not a public one"),
    ],
)
def test_an_url_that_cannot_be_used_is_refused_with_what_is_allowed(url: str, said: str) -> None:
    with pytest.raises(UrlRefused, match=said):
        check_url(url)


def test_production_takes_https_on_two_ports_only(settings: Any) -> None:
    settings.PRODUCTION, settings.WEBHOOK_PORTS = True, {443, 8443}
    assert check_url("https://example.com/hook") == "https://example.com/hook"
    assert check_url("https://example.com:8443/")
    with pytest.raises(UrlRefused, match="begins with https:// is required"):
        check_url("http://example.com/")
    with pytest.raises(UrlRefused, match="Allowed are: 443, 8443"):
        check_url("https://example.com:22/")


SHOW = """
from quiktrade import settings
import json
print(json.dumps([sorted(map(str, settings.WEBHOOK_ALLOW)), sorted(settings.WEBHOOK_PORTS)]))
"""


def shown(**environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", SHOW],
        cwd=ROOT,
        env={"PATH": os.defpath, **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_allowed_networks_and_ports_are_settings() -> None:
    assert json.loads(shown().stdout) == [[], []]
    given = {"QUIKTRADE_WEBHOOK_ALLOW": "10.1.0.0/16, ::1", "QUIKTRADE_WEBHOOK_PORTS": "443,9443"}
    assert json.loads(shown(**given).stdout) == [["10.1.0.0/16", "::1/128"], [443, 9443]]
    for name, value in (("QUIKTRADE_WEBHOOK_ALLOW", "10.1.0.1/16"), ("QUIKTRADE_WEBHOOK_PORTS", "0")):
        done = shown(**{name: value})
        assert done.returncode != 0
        assert name in done.stderr
