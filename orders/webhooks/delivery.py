"""Delivers webhooks: claims what is due, sends it with no transaction open, and records what came of it.

A run takes one process of a node's job cluster and never a second one: placement has the others. It lasts for a bounded
time, and has to end without waiting for a receiver that takes long, because the next run would only begin then. So
near its end it leaves out receivers that are known to be slow or to fail; and what a receiver that was not known to be
slow has not answered at the end is given up, and sent again by the next run.
"""

import asyncio
import logging
import os
import socket
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from uuid import UUID

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from django.db import close_old_connections
from yarl import URL

from orders import metrics
from orders.engine import DatabaseThread
from orders.webhooks import bodies, rows
from orders.webhooks.addresses import UrlRefused, check_url, guarded_socket
from orders.webhooks.rows import Claimed, Result
from orders.webhooks.verdicts import Answer, retry_after, verdict
from quiktrade.public_addresses import NOT_PUBLIC
from quiktrade.signing import signed_headers
from quiktrade.tracing import spans

logger = logging.getLogger(__name__)

IN_FLIGHT = 80
TROUBLED_IN_FLIGHT = 16
"""Of these, this many are for receivers that are slow or fail, and for no others."""
TIMEOUT_SECONDS = 15.0
"""From the look-up of the name to the last byte of the answer that is read."""
GIVE_UP_SECONDS = 2.0
"""At its end a run waits this long for answers."""
ASK_SECONDS = 0.1
"""The rows are asked this often for new events and for deliveries that became due."""
GATHER_SECONDS = 0.002
BUSY = 8
"""With more deliveries under way than this, gathering results is worth the wait."""
READ_BYTES = 2_048
"""Of an answer; the rest is not read."""
BODY_SECONDS = 1.0
"""After its status, an answer's text is waited for no longer than this."""
KEEP_ALIVE_SECONDS = 15.0

_GIVEN_UP = "It had not answered when our process had to end. It is sent again."


class Deliverer:
    """Delivers in one event loop. `claims` and `records` are the threads that use the database."""

    def __init__(self, claims: DatabaseThread, records: DatabaseThread) -> None:
        self._claims = claims
        self._records = records
        self._calls: dict[asyncio.Task[None], Claimed] = {}
        self._results: list[Result] = []
        self._names = ThreadPoolExecutor(IN_FLIGHT, thread_name_prefix="names")
        self._wake = asyncio.Event()
        self._result = asyncio.Event()
        self._writing = False
        self._over = False
        self.delivered = 0
        self.failed = 0

    async def run(self, *, seconds: float, linger: float = 0.0, stopping: Callable[[], bool] = lambda: False) -> None:
        """Deliver for `seconds` at most, and until nothing has been due for `linger` seconds."""
        self._over = False
        await self._claims(close_old_connections)
        await self._records(close_old_connections)
        recorder = asyncio.create_task(self._record())
        recorder.add_done_callback(lambda _: self._wake.set())
        async with self._session() as session:
            try:
                await self._claim(session, recorder, time.monotonic() + seconds, linger, stopping)
                if self._calls:
                    await asyncio.wait(self._calls, timeout=GIVE_UP_SECONDS)
            finally:
                for call in self._calls:
                    call.cancel()
                await asyncio.gather(*self._calls, return_exceptions=True)
                self._over = True
                self._result.set()
                await recorder

    # ---- claim ----

    async def _claim(
        self,
        session: aiohttp.ClientSession,
        recorder: "asyncio.Task[None]",
        end: float,
        linger: float,
        stopping: Callable[[], bool],
    ) -> None:
        idle_since: float | None = None
        fanned_out_at = -ASK_SECONDS
        while (now := time.monotonic()) < end and not stopping() and not recorder.done():
            self._wake.clear()
            found = 0
            if now - fanned_out_at >= ASK_SECONDS:
                found = (await self._claims.until_done(rows.fan_out)).events
                fanned_out_at = -ASK_SECONDS if found else now
            claimed = await self._claim_once(session, may_be_slow=end - now > TIMEOUT_SECONDS)
            if found or claimed or self._calls or self._results or self._writing:
                idle_since = None
            elif idle_since is None:
                idle_since = now
            elif now - idle_since >= linger:
                return
            # A claim takes all that is due and has room. Recording makes room, and sets the event.
            if not found:
                try:
                    await asyncio.wait_for(self._wake.wait(), ASK_SECONDS)
                except TimeoutError:
                    pass

    async def _claim_once(self, session: aiohttp.ClientSession, *, may_be_slow: bool) -> int:
        places = IN_FLIGHT - len(self._calls)
        troubled = TROUBLED_IN_FLIGHT - sum(claimed.troubled for claimed in self._calls.values())
        if places <= 0:
            return 0
        troubled = max(0, min(places, troubled)) if may_be_slow else 0
        due = await self._claims.until_done(_claim_with_bodies, places=places - troubled, troubled=troubled)
        for claimed, body, context in due:
            call = asyncio.create_task(self._deliver(session, claimed, body, context))
            self._calls[call] = claimed
            call.add_done_callback(self._calls.__delitem__)
        return len(due)

    # ---- send ----

    async def _deliver(
        self, session: aiohttp.ClientSession, claimed: Claimed, body: str, context: rows.Context | None
    ) -> None:
        started = time.monotonic()
        contexts = [context.traceparent] if context else []
        about: spans.Attributes = {"order.id": str(context.order_id), "attempt": claimed.attempt} if context else {}
        try:
            with spans.linked("webhook", contexts, about, call=True) as span:
                answer = await _post(session, claimed, body)
                span.note({"http.response.status_code": answer.code or 0})
        except asyncio.CancelledError:
            answer = Answer(None, _GIVEN_UP, time.monotonic() - started, interrupted=True)
        except Exception:
            logger.exception(
                "A delivery failed in a way nobody foresaw",
                extra={"event": "webhook.delivery_failed", "delivery": claimed.id},
            )
            answer = Answer(None, "It could not be sent, by an error of ours.", time.monotonic() - started)
        self._results.append(Result(claimed, answer, verdict(answer, claimed.failures)))
        self._result.set()

    # ---- record ----

    async def _record(self) -> None:
        """Write results as they arrive, until the run is over and none is left."""
        while self._results or not self._over:
            await self._result.wait()
            if len(self._calls) > BUSY:
                await asyncio.sleep(GATHER_SECONDS)
            self._result.clear()
            results, self._results = self._results, []
            if results:
                self._writing = True  # until then their endpoints have no room, and more may be due than is claimed
                recorded = await self._records.until_done(rows.record, results)
                self._writing = False
                metrics.count_deliveries([result.verdict.delivered for result in results])
                self.delivered += sum(result.verdict.delivered for result in results)
                self.failed += sum(not result.verdict.delivered for result in results)
                _log(results, recorded)
                self._wake.set()

    def _session(self) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=0,
                keepalive_timeout=KEEP_ALIVE_SECONDS,
                resolver=_Resolver(self._names),
                socket_factory=guarded_socket,
            ),
            timeout=aiohttp.ClientTimeout(total=None),
            headers={"Accept-Encoding": "identity", "User-Agent": "QuikTrade webhooks"},
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            trust_env=False,
        )


class _Resolver(AbstractResolver):
    """Looks names up in threads of its own.

    The event loop's own threads are few, and placement uses them, too. A client whose name server does not answer
    would take them all.
    """

    def __init__(self, pool: ThreadPoolExecutor) -> None:
        self._pool = pool

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        loop = asyncio.get_running_loop()
        found = await loop.run_in_executor(
            self._pool, lambda: socket.getaddrinfo(host, port, family=family, type=socket.SOCK_STREAM)
        )
        return [
            ResolveResult(
                hostname=host,
                host=str(address[0]),
                port=port,
                family=family_,
                proto=protocol,
                flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
            )
            for family_, _, protocol, _, address in found
        ]

    async def close(self) -> None:
        pass


def _claim_with_bodies(*, places: int, troubled: int) -> list[tuple[Claimed, str, rows.Context | None]]:
    """One call on the database thread: what was claimed, each with what is sent and the context of its order."""
    claimed = rows.claim(places=places, troubled=troubled)
    event_ids = [delivery.event_id for delivery in claimed if delivery.event_id is not None]
    made = bodies.of_events(event_ids)
    contexts = rows.contexts(event_ids) if event_ids and spans.recording() else {}
    due: list[tuple[Claimed, str, rows.Context | None]] = []
    gone: list[int] = []
    for delivery in claimed:
        if delivery.event_id is None:
            due.append((delivery, bodies.of_test(delivery.created_at), None))
        elif delivery.event_id in made:
            due.append((delivery, made[delivery.event_id], contexts.get(delivery.event_id)))
        else:  # a replay made it while the order moved to the archive
            gone.append(delivery.id)
    if gone:
        rows.remove(gone)
        fields = {"event": "webhook.events_archived", "deliveries": len(gone)}
        logger.warning("Webhook deliveries are removed: their events are archived", extra=fields)
    return due


async def _post(session: aiohttp.ClientSession, claimed: Claimed, body: str) -> Answer:
    """Send once. A redirect is an answer like any other: it is not followed."""
    started = time.monotonic()

    def none(text: str) -> Answer:
        return Answer(None, text, time.monotonic() - started)

    now = datetime.now(UTC)
    headers = spans.headers() | signed_headers(claimed.message_id, body, secrets=claimed.secrets, at=now)
    try:
        url = URL(check_url(claimed.url), encoded=True)  # the settings may have changed since it was registered
        async with (
            asyncio.timeout(TIMEOUT_SECONDS),
            session.post(
                url, data=body.encode(), headers={**headers, "Content-Type": "application/json"}, allow_redirects=False
            ) as response,
        ):
            code, pause = response.status, retry_after(response.headers.get("Retry-After"), now)
            text = await _beginning(response)
            return Answer(code, text, time.monotonic() - started, pause)
    except UrlRefused as error:
        return none(str(error))
    except TimeoutError:
        return none(f"No answer within {TIMEOUT_SECONDS:g} s.")
    except aiohttp.ClientConnectorDNSError:
        return none("The name of its host has no address.")
    except (aiohttp.ClientConnectorCertificateError, aiohttp.ClientConnectorSSLError) as error:
        return none(f"TLS failed: {_cause(error)}")
    except aiohttp.ClientConnectorError as error:
        return none(NOT_PUBLIC if NOT_PUBLIC in f"{error.os_error}" else f"No connection: {_cause(error)}")
    except aiohttp.ClientResponseError as error:
        return none(f"The answer cannot be read: {error.message}")
    except (aiohttp.ClientError, OSError):
        return none("The connection was lost before an answer came.")


def _cause(error: Exception) -> str:
    """What the system said, without the addresses that aiohttp adds."""
    number = getattr(error, "errno", None)
    return os.strerror(number) if number and number > 0 else type(error).__name__


async def _beginning(response: aiohttp.ClientResponse) -> str:
    """The beginning of the answer's text. Its status counts, whatever follows."""
    text = bytearray()
    try:
        async with asyncio.timeout(BODY_SECONDS):
            while len(text) < READ_BYTES and (chunk := await response.content.read(READ_BYTES - len(text))):
                text += chunk
    except (TimeoutError, aiohttp.ClientError, OSError):
        response.close()
    if not response.content.at_eof():
        response.close()
    return text.decode("utf-8", "replace")


def _log(results: Sequence[Result], recorded: rows.Recorded) -> None:
    """Neither addresses, which may have secrets in them, nor texts of receivers are logged."""
    failed: dict[UUID, list[Answer]] = {}
    for result in results:
        if not result.verdict.delivered:
            failed.setdefault(result.delivery.endpoint_id, []).append(result.answer)
    for endpoint, answers in failed.items():
        fields = {"event": "webhook.not_delivered", "endpoint": endpoint, "deliveries": len(answers)}
        logger.info("Webhook not delivered, trying again", extra={**fields, "code": answers[-1].code})
    for endpoint in recorded.dead:
        logger.warning("Webhook deliveries are given up", extra={"event": "webhook.dead", "endpoint": endpoint})
    for disabled, reason in recorded.disabled:
        fields = {"event": "webhook.disabled", "endpoint": disabled, "reason": reason}
        logger.warning("Webhook disabled", extra=fields)
