"""HTTP for adapters of venues: one request, one deadline, and errors that claim no more than is known.

What may have arrived is `OutcomeUnknown`; `NotSent` is raised only where no byte of the request left us. Each
call is put on the wire once: nothing here, in aiohttp or in the kernel sends it again after we gave it up.
"""

import asyncio
import json
import logging
import math
import socket
import struct
import sys
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from email.utils import parsedate_to_datetime
from typing import Any

import aiohttp
from yarl import URL

from exchanges.venue import NotSent, OutcomeUnknown, VenueTrouble
from quiktrade import crash
from quiktrade.tracing import spans

MAX_REPLY_BYTES = 64 * 1024
"""An answer about one order takes a few hundred bytes; more is not an answer."""

LARGEST_MESSAGE = 4 * 1024 * 1024
"""A message of a stream holds some hundred reports of a few hundred bytes each."""

CLOSE_SECONDS = 0.2
"""For this long a stream that we close waits for its other end to agree."""

CONNECT_SHARE = 0.5
"""The part of the deadline for connecting. It ends first, so that a request not sent is known as such."""

KEEP_ALIVE_SECONDS = 15.0
"""We close idle connections earlier than servers do: a request sent while the server closes would be lost."""

_LINGER_AND_RESET = struct.pack("ii", 1, 0)

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class HttpReply:
    """A complete reply. Redirects are not followed, and nothing is decompressed."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json_object(self) -> dict[str, Any]:
        """The body. Raises: OutcomeUnknown if it is not one JSON object in UTF-8, or does not say that it is JSON.

        An object that gives a name twice says two things at once, and is no more readable than half an object.
        """
        content_type = self.headers.get("Content-Type", "").partition(";")[0].strip().lower()
        try:
            content = _decoded(self.body) if content_type == "application/json" else None
        except (ValueError, ArithmeticError, RecursionError):
            content = None
        if not isinstance(content, dict):
            raise OutcomeUnknown("unreadable_reply", f"HTTP {self.status}, {content_type[:100]!r}")
        return content

    @property
    def asks_for_a_pause(self) -> bool:
        """429, or 503 with the header that says when to come back: about the venue, and not about the request."""
        return self.status == 429 or (self.status == 503 and "Retry-After" in self.headers)

    def retry_after(self) -> float | None:
        """Retry-After, a number or a date (RFC 9110, 10.2.3), in seconds; None if it is absent or makes no sense."""
        text = self.headers.get("Retry-After", "")
        try:
            seconds = float(text)
        except ValueError:
            if (until := _date(text)) is None:
                return None
            # By the venue's clock, if the reply says its time: ours may be an hour off.
            seconds = max((until - (_date(self.headers.get("Date", "")) or datetime.now(UTC))).total_seconds(), 0.0)
        return seconds if seconds >= 0 else None


def _date(text: str) -> datetime | None:
    try:
        date = parsedate_to_datetime(text)
        return date.replace(tzinfo=UTC) if date.tzinfo is None else date.astimezone(UTC)
    except (ValueError, TypeError, OverflowError, IndexError):
        return None


def _decoded(body: bytes) -> Any:
    """JSON as the standard has it (RFC 8259): no NaN, no byte-order mark, no other encoding. Numbers are exact."""
    return json.loads(body.decode("utf-8"), object_pairs_hook=_object, parse_constant=_no_number, parse_float=Decimal)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        raise ValueError("a name is given twice")
    return content


def _no_number(word: str) -> Any:
    raise ValueError(f"{word} is not a number")


class HttpCalls:
    """Calls to one venue, for the event loop in which the first is made.

    `timeout_seconds` bounds a call from connecting to the last byte read, however slowly it comes. Before
    that, a call may wait as long again for one of the `in_flight` connections.
    """

    def __init__(self, url: URL, *, timeout_seconds: float, in_flight: int) -> None:
        self._url = str(url).rstrip("/")
        self._timeout_seconds = timeout_seconds
        self._free = asyncio.Semaphore(in_flight)
        self._session: aiohttp.ClientSession | None = None

    async def send(
        self, method: str, path: str, body: bytes | None = None, *, largest: int = MAX_REPLY_BYTES
    ) -> HttpReply:
        """Make the call; `path` is percent-encoded already. Raises: NotSent, OutcomeUnknown.

        A reply of more than `largest` bytes is no answer.
        """
        await self._take_connection()
        try:
            return await self._send(method, path, body, largest)
        except aiohttp.ConnectionTimeoutError as error:
            raise NotSent("connect_timeout", "no connection in time") from error
        except aiohttp.ClientConnectorError as error:
            raise NotSent("connect_failed", _text_of(error)) from error
        except TimeoutError as error:
            raise OutcomeUnknown("timeout", f"no whole reply in {self._timeout_seconds:g} s") from error
        except aiohttp.ClientPayloadError as error:
            raise OutcomeUnknown("reply_cut_short", _text_of(error)) from error
        except aiohttp.ClientResponseError as error:
            raise OutcomeUnknown("unreadable_reply", error.message) from error
        except (aiohttp.ClientError, OSError) as error:
            raise OutcomeUnknown("connection_lost", _text_of(error)) from error
        except OutcomeUnknown:
            raise
        except Exception as error:
            logger.exception("A call to a venue failed in a way nobody foresaw", extra={"event": "venue.call_failed"})
            raise OutcomeUnknown("unforeseen", _text_of(error)) from error
        finally:
            self._free.release()

    async def listen(self, path: str) -> AsyncIterator[str]:
        """The text messages of a WebSocket, until it ends. Raises: NotSent if it cannot be opened, OutcomeUnknown.

        It takes no place among the calls. How long it may be silent is for the caller to say.
        """
        if self._session is None:
            self._session = self._open_session()
        url = URL(self._url + path, encoded=True)
        try:
            async with asyncio.timeout(self._timeout_seconds):
                socket = await self._session.ws_connect(
                    url, max_msg_size=LARGEST_MESSAGE, timeout=aiohttp.ClientWSTimeout(ws_close=CLOSE_SECONDS)
                )
        except aiohttp.WSServerHandshakeError as error:
            trouble = VenueTrouble.LOCKED_OUT if error.status in (401, 403) else None
            raise NotSent("no_stream", f"HTTP {error.status}", answered=True, trouble=trouble) from error
        except (aiohttp.ClientError, OSError) as error:
            raise NotSent("no_stream", _text_of(error)) from error
        try:
            async for message in socket:
                if message.type is not aiohttp.WSMsgType.TEXT:
                    raise OutcomeUnknown("unreadable_message", f"a message of type {message.type.name.lower()}")
                yield message.data
        finally:
            await socket.close()

    async def close(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def _take_connection(self) -> None:
        # We wait here and not in aiohttp, because the wait must not reduce the time of the request on the wire.
        if not self._free.locked():
            await self._free.acquire()
            return
        try:
            async with asyncio.timeout(self._timeout_seconds):
                await self._free.acquire()
        except TimeoutError as error:
            raise NotSent("no_free_connection", "too many calls under way") from error

    async def _send(self, method: str, path: str, body: bytes | None, largest: int) -> HttpReply:
        if self._session is None:
            self._session = self._open_session()
        url = URL(self._url + path, encoded=True)
        headers = spans.headers()
        if body:
            headers["Content-Type"] = "application/json"
        async with (
            asyncio.timeout(self._timeout_seconds),
            self._session.request(method, url, data=body, headers=headers, allow_redirects=False) as response,
        ):
            crash.point("after_send")
            return HttpReply(response.status, response.headers, await _read(response, largest))

    def _open_session(self) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=0, keepalive_timeout=KEEP_ALIVE_SECONDS, socket_factory=self._open_socket
            ),
            timeout=aiohttp.ClientTimeout(total=None, connect=self._timeout_seconds * CONNECT_SHARE),
            headers={"Accept": "application/json", "Accept-Encoding": "identity"},
            skip_auto_headers=("User-Agent",),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            trust_env=False,
            middlewares=(_send_once,),
        )

    def _open_socket(self, address: aiohttp.AddrInfoType) -> socket.socket:
        """Make a socket whose kernel drops a request when we give it up.

        A plain close leaves the kernel to deliver what the peer has not acknowledged, for minutes after a
        network fails: a late original that no settle time covers. Closing with a reset, also when we are
        killed, and giving up on what stays unacknowledged for as long as our deadline, bound that.
        """
        family, kind, protocol, _, _ = address
        made = socket.socket(family, kind, protocol)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_AND_RESET)
        if sys.platform == "linux":
            milliseconds = math.ceil(self._timeout_seconds * 1000)
            made.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, milliseconds)
        return made


async def _send_once(request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
    """Keep aiohttp from sending again over a new connection what was lost on one it had kept alive.

    It does so for GET and PUT (not POST, as of 3.14) when it sees one of the errors caught here.
    """
    try:
        return await handler(request)
    except aiohttp.ClientConnectorError:
        raise
    except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError) as error:
        raise aiohttp.ClientConnectionError(str(error) or type(error).__name__) from error


def _text_of(error: Exception) -> str:
    return str(error) or type(error).__name__


async def _read(response: aiohttp.ClientResponse, largest: int) -> bytes:
    body = bytearray()
    async for chunk in response.content.iter_any():
        body += chunk
        if len(body) > largest:
            raise OutcomeUnknown("unreadable_reply", f"HTTP {response.status}, above {largest} bytes")
    return bytes(body)
