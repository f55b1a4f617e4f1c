"""Sends one message to one channel, and says what came of it. It takes a bounded time, and never happens in a
transaction.

A redirect is not followed, and no proxy of the environment is used: the address in the setting is the one that is
called. Where it leads is judged when its socket is made.
"""

import http.client
import smtplib
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from datetime import UTC, datetime
from functools import cache
from urllib.parse import urlsplit

from django.conf import settings

from quiktrade.alerts import messages
from quiktrade.alerts.channels import MAIL, WEBHOOK, Channel
from quiktrade.alerts.messages import OPENED, Message
from quiktrade.public_addresses import NotAllowed, is_allowed
from quiktrade.signing import signed_headers

STEP_SECONDS = 8.0
"""For each step: to connect, to send, to read."""
MOST_ADDRESSES = 3
DEADLINE_SECONDS = 40.0
"""For all steps together: a receiver that sends a byte now and then would take for ever. There is time for a name that
is looked up slowly and for addresses that do not answer. It is less than `notices.LEASE_SECONDS`, after which another
process sends the same."""
CUT_SECONDS = 0.1
"""After the deadline, each time until there is nothing left to cut off."""


class NotSent(Exception):
    """It may not have arrived. The message says why, with no part of an address and no text of the receiver."""


def send(channel: Channel, message: Message) -> None:
    """Raises: NotSent."""
    try:
        if channel.kind == MAIL:
            _mail(channel, message)
        else:
            _post(channel, message)
    except NotAllowed as error:
        raise NotSent(f"{error.strerror} QUIKTRADE_ALERTS_ALLOW may name its network.") from None
    except TimeoutError:
        limits = f"{STEP_SECONDS:g} s, or not in full within {DEADLINE_SECONDS:g} s."
        raise NotSent(f"It did not answer within {limits}") from None
    except socket.gaierror:
        raise NotSent("The name of its host has no address.") from None
    except ssl.SSLCertVerificationError as error:
        raise NotSent(f"Its certificate is not valid: {error.verify_message}") from None
    except ssl.SSLError as error:
        raise NotSent(f"TLS failed: {error.reason}") from None
    except smtplib.SMTPResponseException as error:
        raise NotSent(f"The mail server answered {error.smtp_code}.") from None
    except smtplib.SMTPRecipientsRefused as error:
        codes = ", ".join(sorted({str(code) for code, _ in error.recipients.values()}))
        raise NotSent(f"The mail server refused the address with {codes}.") from None
    except (smtplib.SMTPException, http.client.HTTPException) as error:
        raise NotSent(f"The conversation broke: {type(error).__name__}") from None
    except OSError as error:
        raise NotSent(f"No connection: {error.strerror or type(error).__name__}") from None


@contextmanager
def _deadline(cut: Callable[[], None]) -> Iterator[threading.Event]:
    """Have `cut` end whatever still waits after DEADLINE_SECONDS. The event is set from then on.

    A name that is looked up cannot be cut off: whoever has a connection at last has to ask whether it is too late.
    Raises: TimeoutError, for what fails after the deadline.
    """
    ended, late = threading.Event(), threading.Event()

    def watch() -> None:
        seconds = DEADLINE_SECONDS
        while not ended.wait(seconds):
            late.set()
            cut()
            seconds = CUT_SECONDS  # there may have been no socket yet

    threading.Thread(target=watch, name="alert's deadline", daemon=True).start()
    try:
        yield late
    except Exception:
        if late.is_set():
            raise TimeoutError from None
        raise
    finally:
        ended.set()


def _hang_up(sock: socket.socket | None) -> None:
    try:
        if sock is not None:
            # An SSLSocket's own drops the encryption first: a thread that is just sending would go on in clear.
            socket.socket.shutdown(sock, socket.SHUT_RDWR)
    except OSError:
        pass  # it is closed already


# ---- HTTP ----


@cache
def _tls() -> ssl.SSLContext:
    return ssl.create_default_context()


def _guarded(host: str, port: int) -> socket.socket:
    """A connection to the first address of this host that may be called and answers. Raises: OSError."""
    refused: OSError = socket.gaierror()
    for family, kind, protocol, _, address in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[:MOST_ADDRESSES]:
        if not is_allowed(str(address[0]), settings.ALERTS_ALLOW):
            refused = NotAllowed()
            continue
        made = socket.socket(family, kind, protocol)
        made.settimeout(STEP_SECONDS)
        try:
            made.connect(address)
        except OSError as error:
            made.close()
            refused = error
        else:
            return made
    raise refused


class _Connection(http.client.HTTPConnection):
    def connect(self) -> None:
        self.sock = _guarded(self.host, self.port)


class _TLSConnection(http.client.HTTPSConnection):
    def connect(self) -> None:
        self.sock = _guarded(self.host, self.port)
        tls = _tls().wrap_socket(self.sock, server_hostname=self.host, do_handshake_on_connect=False)
        self.sock = tls  # so that a handshake that takes for ever can be cut off
        tls.do_handshake()


def _post(channel: Channel, message: Message) -> None:
    url = urlsplit(channel.address)
    assert url.hostname is not None, "it was read so"
    content = messages.body(channel, message)
    headers = {"Content-Type": "application/json", "User-Agent": "QuikTrade alerts"}
    if channel.kind == WEBHOOK:
        headers |= signed_headers(message.id, content.decode(), secrets=[channel.secret], at=datetime.now(UTC))
    secure = url.scheme == "https"
    port = url.port or (443 if secure else 80)  # without one, http.client takes the end of an IPv6 address for it
    connection = (_TLSConnection if secure else _Connection)(url.hostname, port)
    try:
        with _deadline(lambda: _hang_up(connection.sock)) as late:
            connection.connect()
            if late.is_set():
                raise TimeoutError  # another process may be sending it by now
            connection.request("POST", f"{url.path or '/'}{f'?{url.query}' if url.query else ''}", content, headers)
            with connection.getresponse() as answer:
                status = answer.status
    finally:
        connection.close()
    if not 200 <= status < 300:
        raise NotSent(f"It answered {status}.")  # and no word of the answer, which may repeat a secret


# ---- Mail ----


def _mail(channel: Channel, message: Message) -> None:
    from django.core.mail import EmailMessage  # most processes never send one
    from django.core.mail.backends.smtp import EmailBackend

    about = f"{message.incident}@quiktrade"
    first = {} if message.what == OPENED else dict.fromkeys(("In-Reply-To", "References"), f"<opened.{about}>")
    mail = EmailMessage(
        f"[{messages.source()}] {message.headline}",
        "\n\n".join(message.lines),
        to=[channel.address],
        headers={
            "Message-ID": f"<{message.what}.{about}>",  # the same at every attempt, so that a repetition shows as one
            "Auto-Submitted": "auto-generated",
            **first,
        },
    )
    backend = EmailBackend(timeout=STEP_SECONDS)

    def hang_up() -> None:
        begun = backend.connection or getattr(backend, "_partial_connection", None)  # before it was logged in
        _hang_up(getattr(begun, "sock", None))

    with _deadline(hang_up) as late:
        sent = False
        try:
            backend.open()
            if late.is_set():
                raise TimeoutError
            backend.send_messages([mail])
            sent = True
        finally:
            with suppress(OSError, smtplib.SMTPException) if sent else nullcontext():
                backend.close()  # the server has it, whatever follows
