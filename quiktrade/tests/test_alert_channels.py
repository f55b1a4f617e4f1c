"""The channels of alerts: what is refused at the start, and what real receivers get."""

import json
import socket
import ssl
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from orders.tests.receiver import Receiver, after, answers, running_receiver
from quiktrade.alerts import channels, messages, notices, sending
from quiktrade.alerts.channels import Channel, Refused
from quiktrade.alerts.messages import ACKNOWLEDGED, OPENED, RESOLVED, Message
from quiktrade.alerts.sending import NotSent, send
from quiktrade.public_addresses import NOT_PUBLIC
from quiktrade.tests.mail_server import MailServer, running_mail_server
from quiktrade.tests.test_secrets import said

WHSEC = "whsec_c2VjcmV0LW9mLXRlc3RzLTEyMzQ1Njc4OTA="
KEY = "S3CRETa1b2c3d4e5f6a7b8c9d0e1f2a3"
AT = datetime(2026, 1, 31, 9, 30, tzinfo=UTC)
OVERDUE = Message(
    id="alert_7",
    what=OPENED,
    incident="0b7e",
    kind="orders_overdue",
    title="Orders overdue",
    subject="XSIM",
    severity="page",
    sentence="40 orders are overdue at XSIM <here> & now.",
    advice="Look whether a worker runs.",
    at=AT,
    opened_at=AT,
)


def told(what: str) -> Message:
    over = {"resolved_at": AT} if what == RESOLVED else {}
    by = {"acknowledged_by": "operator:olga", "acknowledged_for": "I call."} if what == ACKNOWLEDGED else {}
    return Message(**{**vars(OVERDUE), "what": what, **over, **by})


@pytest.fixture(autouse=True)
def our_own_receivers(settings: Any) -> None:
    settings.ALERTS_ALLOW = [ip_network("127.0.0.0/8")]
    settings.ALLOWED_HOSTS = [".desk.example.com"]


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with running_receiver() as receiver:
        yield receiver


def read(text: str, *, networks: Any = (), schemes: Any = ("https",)) -> list[Channel]:
    return channels.read(text, schemes=schemes, networks=networks)


# ---- Settings ----


def test_channels_are_read_and_their_names_show_no_secret() -> None:
    addresses = [
        "mailto:ops@example.com",
        f"https://hooks.example.com:8443/S3CRET/x?y=1,2#{WHSEC}",
        f"pagerduty:{KEY}",
        f"pagerduty-eu:{KEY}",
        "slack:https://hooks.slack.com/services/T0/B0/S3CRET",
        "teams:https://prod.example.com/workflows/S3CRET?sig=S3CRET",
    ]
    found = read("  ".join(addresses))
    assert [channel.kind for channel in found] == ["mailto", "https", "pagerduty", "pagerduty", "slack", "teams"]
    assert [channel.name.partition("#")[0] for channel in found] == [
        "mailto:ops@example.com",
        "https:hooks.example.com:8443",
        found[2].name,
        found[3].name,
        "slack:hooks.slack.com",
        "teams:prod.example.com",
    ]
    assert found[1].address == "https://hooks.example.com:8443/S3CRET/x?y=1,2"
    assert "S3CRET" not in f"{found}"
    assert WHSEC not in f"{found}"


@pytest.mark.parametrize(
    ("address", "needed"),
    [
        ("S3CRET", "is of no known kind"),
        ("ftp://S3CRET", "is of no known kind"),
        (f"http://S3CRET.example.com/#{WHSEC}", "is of no known kind"),
        ("mailto:S3CRET", "must be a mail address"),
        ("mailto:a@b,S3CRET@c", "must be a mail address"),
        ("pagerduty:S3CRET", "must be pagerduty: and an integration key"),
        ("https://S3CRET.example.com/", "the secret that signs"),
        ("https://example.com/#whsec_S3CRET", "the secret that signs"),
        (f"https://S3CRET:x@example.com/#{WHSEC}", "no user name or password"),
        (f"https://example.com:S3CRET/#{WHSEC}", "must be https://host/path#whsec_…"),
        (f"https://127.1/S3CRET#{WHSEC}", "not public. QUIKTRADE_ALERTS_ALLOW may name its network"),
        (f"https://[fd00::1]/S3CRET#{WHSEC}", "not public"),
        ("slack:https://localhost/S3CRET", "not public"),
        ("slack:http://hooks.slack.com/S3CRET", "must be slack:https://…"),
        ("teams:S3CRET", "must be teams:https://…"),
    ],
)
def test_a_bad_channel_is_refused_by_its_number_and_not_repeated(address: str, needed: str) -> None:
    with pytest.raises(Refused) as refused:
        read(f"mailto:ops@example.com {address}")
    assert str(refused.value).startswith("QUIKTRADE_ALERTS: address 2 ")
    assert needed in str(refused.value)
    assert "S3CRET" not in str(refused.value)


def test_a_private_channel_is_taken_where_the_setting_names_its_network() -> None:
    (channel,) = read(f"https://10.1.2.3/x#{WHSEC}", networks=[ip_network("10.0.0.0/8")])
    assert channel.address == "https://10.1.2.3/x"


def test_a_channel_that_is_there_twice_is_refused() -> None:
    with pytest.raises(Refused, match="address 2 is there twice"):
        read(f"pagerduty:{KEY} pagerduty:{KEY}")


@pytest.mark.parametrize(
    ("environment", "needed"),
    [
        ({"QUIKTRADE_ALERTS": "pagerduty:S3CRET"}, "QUIKTRADE_ALERTS: address 1"),
        ({"QUIKTRADE_ALERTS": "mailto:a@b.example"}, "QUIKTRADE_SMTP must name the mail server"),
        ({"QUIKTRADE_SMTP": "smtp://u:S3CRET@mail.example.com"}, "must not be sent in clear"),
        ({"QUIKTRADE_SMTP": "mail.S3CRET.com"}, "QUIKTRADE_SMTP must be smtp://host:25"),
        ({"QUIKTRADE_SMTP": "smtps://u:S3CRET/p@mail"}, "QUIKTRADE_SMTP must be smtp://host:25"),
        ({"QUIKTRADE_ALERTS_ALLOW": "S3CRET"}, "QUIKTRADE_ALERTS_ALLOW must be networks"),
        ({"QUIKTRADE_MAIL_FROM": "S3CRET"}, "QUIKTRADE_MAIL_FROM must be a mail address"),
    ],
)
def test_a_process_does_not_start_with_a_bad_channel(environment: dict[str, str], needed: str) -> None:
    output = said("manage.py", "check", **environment)
    assert needed in output
    assert "S3CRET" not in output


# ---- What arrives ----


def test_a_webhook_is_signed_and_says_all_that_is_known(receiver: Receiver) -> None:
    send(Channel("https", "x", receiver.url, WHSEC), OVERDUE)
    (received,) = receiver.received
    assert received.id == "alert_7"
    content = received.verified(WHSEC)
    assert (content["type"], content["timestamp"]) == ("incident.opened", "2026-01-31T09:30:00Z")
    assert content["data"] == {
        "incident": "0b7e",
        "installation": "desk.example.com",
        "kind": "orders_overdue",
        "title": "Orders overdue",
        "subject": "XSIM",
        "severity": "page",
        "sentence": OVERDUE.sentence,
        "advice": OVERDUE.advice,
        "opened_at": "2026-01-31T09:30:00Z",
        "resolved_at": None,
        "acknowledged_by": "",
        "acknowledged_for": "",
        "link": "",
    }


def test_pagerduty_gets_one_key_for_all_that_is_said_of_an_incident(receiver: Receiver) -> None:
    channel = Channel("pagerduty", "x", receiver.url, KEY)
    for what in (OPENED, ACKNOWLEDGED, RESOLVED):
        send(channel, told(what))
    events = [json.loads(received.body) for received in receiver.received]
    assert [event["event_action"] for event in events] == ["trigger", "acknowledge", "resolve"]
    assert {(event["routing_key"], event["dedup_key"]) for event in events} == {(KEY, "0b7e")}
    assert events[0]["payload"]["summary"] == f"Orders overdue (XSIM): {OVERDUE.sentence}"
    assert (events[0]["payload"]["severity"], events[0]["payload"]["source"]) == ("critical", "desk.example.com")


def test_slack_gets_a_text_in_which_nothing_is_taken_for_a_command(receiver: Receiver) -> None:
    send(Channel("slack", "x", receiver.url), OVERDUE)
    text = json.loads(receiver.received[0].body)["text"]
    assert text.splitlines() == [
        "*desk.example.com: Orders overdue (XSIM)*",
        "40 orders are overdue at XSIM &lt;here&gt; &amp; now.",
        "Look whether a worker runs.",
        "Since 2026-01-31 09:30:00 UTC.",
    ]


def test_teams_gets_a_card(receiver: Receiver) -> None:
    send(Channel("teams", "x", receiver.url), told(RESOLVED))
    (attachment,) = json.loads(receiver.received[0].body)["attachments"]
    assert attachment["contentType"] == "application/vnd.microsoft.card.adaptive"
    assert [block["text"] for block in attachment["content"]["body"]] == [
        "desk.example.com: Over: Orders overdue (XSIM)",
        "It was: 40 orders are overdue at XSIM \\<here\\> & now.",
        "From 2026-01-31 09:30:00 UTC to 2026-01-31 09:30:00 UTC.",
    ]


@pytest.fixture
def mail_server(settings: Any) -> Iterator[MailServer]:
    with running_mail_server() as server:
        settings.EMAIL_HOST, settings.EMAIL_PORT = "127.0.0.1", server.port
        settings.DEFAULT_FROM_EMAIL = "quiktrade@desk.example.com"
        yield server


def test_mail_arrives_and_what_follows_belongs_to_the_first(mail_server: MailServer) -> None:
    channel = Channel("mailto", "x", "ops@example.com")
    send(channel, OVERDUE)
    send(channel, told(RESOLVED))
    (to, first), (_, last) = mail_server.received
    assert (to, first["From"]) == ("ops@example.com", "quiktrade@desk.example.com")
    assert first["Subject"] == "[desk.example.com] Orders overdue (XSIM)"
    assert OVERDUE.sentence in first.get_content()
    assert last["Subject"] == "[desk.example.com] Over: Orders overdue (XSIM)"
    assert last["In-Reply-To"] == first["Message-ID"] == "<opened.0b7e@quiktrade>"


def test_a_mail_that_the_server_refuses_is_told_by_its_code(mail_server: MailServer) -> None:
    mail_server.refuse = "550 no such S3CRET"
    with pytest.raises(NotSent, match=r"^The mail server refused the address with 550\.$"):
        send(Channel("mailto", "x", "ops@example.com"), OVERDUE)


# ---- What does not ----


def failure(url: str, **more: str) -> str:
    with pytest.raises(NotSent) as error:
        send(Channel("slack", "x", url, **more), OVERDUE)
    return str(error.value)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "2130706433", "[::1]", "169.254.169.254", "10.0.0.1"])
def test_a_private_address_is_refused_where_the_socket_is_made(settings: Any, receiver: Receiver, host: str) -> None:
    settings.ALERTS_ALLOW = []
    assert failure(f"http://{host}:{receiver.port}/").startswith(NOT_PUBLIC)
    assert receiver.received == []


@pytest.mark.parametrize(
    ("kind", "path", "secret", "said"),
    [
        ("teams", "/workflows/abc?sig=S3CRETsignature", "", "bad signature: S3CRETsignature"),
        ("slack", "/services/T0/B0/S3CRET", "", '{"path": "\\/services\\/T0\\/B0\\/S3CRET"}'),
        ("pagerduty", "/v2/enqueue", KEY, f"{' ' * 280}no such key: {KEY}"),
    ],
)
def test_of_an_answer_that_refuses_only_the_status_is_shown(kind: str, path: str, secret: str, said: str) -> None:
    with running_receiver(answers(400, said)) as receiver, pytest.raises(NotSent) as error:
        send(Channel(kind, "x", f"http://127.0.0.1:{receiver.port}{path}", secret), OVERDUE)
    assert str(error.value) == "It answered 400."


def test_a_redirect_is_not_followed(receiver: Receiver) -> None:
    with running_receiver(answers(302, Location=receiver.url)) as first:
        assert failure(first.url) == "It answered 302."
    assert receiver.received == []


def test_who_does_not_answer_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sending, "STEP_SECONDS", 0.3)
    with running_receiver(after(20, answers(200))) as receiver:
        assert failure(receiver.url).startswith("It did not answer within 0.3 s")


@contextmanager
def trickling(first: bytes, then: bytes) -> Iterator[str]:
    """A receiver that answers a byte at a time until somebody hangs up: each step is quick, and there is no end."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        hung_up = threading.Event()

        def trickle() -> None:
            client, _ = server.accept()
            with client:
                try:
                    client.sendall(first)
                    while not hung_up.wait(0.05):
                        client.sendall(then)
                except OSError:
                    hung_up.set()

        thread = threading.Thread(target=trickle)
        thread.start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}/"
        assert hung_up.wait(10)
        thread.join()


def test_who_answers_a_byte_at_a_time_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sending, "DEADLINE_SECONDS", 0.5)
    with trickling(b"HTTP/1.1 ", b" ") as url:
        assert failure(url).startswith("It did not answer within")


def test_who_says_yes_has_it_though_the_rest_of_the_answer_never_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise it would be sent to a person ten times."""
    monkeypatch.setattr(sending, "DEADLINE_SECONDS", 3.0)  # a busy machine needs a part of it to connect
    with trickling(b"HTTP/1.1 200 OK\r\nX: ", b"x") as url:
        send(Channel("slack", "x", url), OVERDUE)


@pytest.fixture
def slow_look_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """The deadline ends while the name is looked up."""
    look_up, hang_up, late = socket.getaddrinfo, sending._hang_up, threading.Event()

    def end(sock: socket.socket | None) -> None:
        late.set()
        hang_up(sock)

    def wait(*args: Any, **more: Any) -> Any:
        assert late.wait(10)
        return look_up(*args, **more)

    monkeypatch.setattr(sending, "DEADLINE_SECONDS", 0.01)
    monkeypatch.setattr(sending, "_hang_up", end)
    monkeypatch.setattr(socket, "getaddrinfo", wait)


@pytest.mark.usefixtures("slow_look_up")
def test_nothing_is_sent_when_the_look_up_of_a_name_took_all_the_time(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sending, "CUT_SECONDS", 60.0)
    assert failure(receiver.url).startswith("It did not answer within")
    assert receiver.received == []


@pytest.mark.usefixtures("slow_look_up")
def test_no_mail_is_sent_when_the_look_up_of_a_name_took_all_the_time(
    mail_server: MailServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sending, "CUT_SECONDS", 60.0)
    with pytest.raises(NotSent, match="It did not answer within"):
        send(Channel("mailto", "x", "ops@example.com"), OVERDUE)
    assert mail_server.received == []


def test_there_is_time_for_addresses_that_do_not_answer_and_no_other_process_sends_meanwhile() -> None:
    ten_for_the_name = 10.0
    assert ten_for_the_name + sending.MOST_ADDRESSES * sending.STEP_SECONDS < sending.DEADLINE_SECONDS
    assert sending.DEADLINE_SECONDS + sending.STEP_SECONDS < notices.LEASE_SECONDS


@pytest.mark.parametrize(("scheme", "port"), [("http", 80), ("https", 443)])
def test_an_ipv6_address_without_a_port_is_called_as_it_is(
    scheme: str, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    called = []

    def refuse(*address: Any) -> Any:
        called.append(address)
        raise ConnectionRefusedError

    monkeypatch.setattr(sending, "_guarded", refuse)
    failure(f"{scheme}://[2606:4700::1111]/")
    assert called == [("2606:4700::1111", port)]


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """For localhost, by nobody else, with its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), 1, now, now + timedelta(days=1))
    signed = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False).sign(
        key, hashes.SHA256()
    )
    path = tmp_path / "certificate.pem"
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    path.write_bytes(private + signed.public_bytes(Encoding.PEM))
    return path


@pytest.mark.parametrize("trusted", [True, False])
def test_a_receiver_with_tls_is_told_if_its_certificate_is_valid(
    certificate: Path, trusted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if trusted:
        monkeypatch.setattr(sending, "_tls", lambda: ssl.create_default_context(cafile=str(certificate)))
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)
    with socket.create_server(("127.0.0.1", 0)) as server, ThreadPoolExecutor(1) as pool:

        def answer() -> bytes:
            client, _ = server.accept()
            with client, suppress(OSError), context.wrap_socket(client, server_side=True) as secure:
                request = secure.recv(65_536)
                secure.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
                return request
            return b""

        received = pool.submit(answer)
        url = f"https://localhost:{server.getsockname()[1]}/hook"
        if trusted:
            send(Channel("slack", "x", url), OVERDUE)
            assert received.result(10).startswith(b"POST /hook HTTP/1.1")
        else:
            assert failure(url).startswith("Its certificate is not valid")
            assert received.result(10) == b""


def test_who_makes_tls_a_byte_at_a_time_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sending, "DEADLINE_SECONDS", 0.5)
    with trickling(b"\x16\x03\x03\x40\x00", b"x") as url:  # the beginning of a record of 16,384 bytes
        assert failure(url.replace("http:", "https:")).startswith("It did not answer within")


def test_nobody_listens_and_no_such_name() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    assert failure(f"http://127.0.0.1:{port}/") == "No connection: Connection refused"
    assert failure("http://no-such-host.invalid/") == "The name of its host has no address."


def test_an_incidents_page_is_linked_where_the_settings_say_where_the_console_is(settings: Any) -> None:
    assert messages.link("0b7e") == ""
    settings.CSRF_TRUSTED_ORIGINS = ["https://console.example.com"]
    assert messages.link("0b7e") == "https://console.example.com/admin/quiktrade/incident/0b7e/change/"
