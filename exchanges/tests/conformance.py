"""What every adapter must make of what can happen on the wire: one suite, over a real socket.

A new adapter subclasses `VenueConformance` in a test module and says how its venue words its answers. The
suite speaks HTTP; that is the only thing in it that is not true of every venue.
"""

import asyncio
import gzip
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from exchanges.tests import peer as wire
from exchanges.tests.loops import asynchronous
from exchanges.tests.peer import Peer, Request, reply
from exchanges.venue import (
    Acknowledgement,
    CancelRequest,
    Done,
    NewOrder,
    NotSent,
    NotSupported,
    OrderRejected,
    OutcomeUnknown,
    ReplaceRequest,
    Report,
    ReportStatus,
    RequestRefused,
    Taken,
    Venue,
    VenueTrouble,
)

QUICK = 0.3
"""A deadline for calls that are meant to run into it, in seconds."""

ORDER = NewOrder(
    client_order_id="0192f0c1-7a2b-7c3d-8e4f-5a6b7c8d9e0f",
    instrument="US0378331005",
    side="buy",
    type="limit",
    quantity=100,
    limit_price=Decimal("187.25"),
    stop_price=None,
    time_in_force="day",
    expires_at=None,
    valid_until=datetime(2100, 1, 1, tzinfo=UTC),
)

CANCEL = CancelRequest(
    client_order_id="0192f0c1-7a2b-7c3d-8e4f-00000000000c",
    original_client_order_id=ORDER.client_order_id,
    order_id=ORDER.client_order_id,
    venue_order_id="V-1",
    valid_until=datetime(2100, 1, 1, tzinfo=UTC),
)
REPLACE = ReplaceRequest(
    client_order_id="0192f0c1-7a2b-7c3d-8e4f-00000000000d",
    original_client_order_id=ORDER.client_order_id,
    order_id=ORDER.client_order_id,
    venue_order_id="V-1",
    valid_until=datetime(2100, 1, 1, tzinfo=UTC),
    quantity=80,
    limit_price=Decimal("187.50"),
    stop_price=None,
    time_in_force="gtd",
    expires_at=datetime(2099, 12, 31, 20, tzinfo=UTC),
)

Amendment = CancelRequest | ReplaceRequest
AMENDMENTS = [pytest.param(CANCEL, id="cancel"), pytest.param(REPLACE, id="replace")]


async def amend(venue: Venue, request: Amendment) -> Done | Taken:
    return await (venue.cancel(request) if isinstance(request, CancelRequest) else venue.replace(request))


STRANGE_BODIES = [
    b"",
    b"null",
    b"[]",
    b"{}",
    b'"placed"',
    b"{\xff}",
    b"[" * 50_000,
    b'{"status": 1e999, "client_order_id": NaN}',
    b'{"code": 1e99999999999999999999}',
    b"9" * 5_000,
]


def twisted(reply: bytes, twist: Callable[[bytes], bytes]) -> bytes:
    """The reply with another body, of the right length."""
    head, _, body = reply.partition(b"\r\n\r\n")
    length = f"content-length: {len(body)}".encode()
    body = twist(body)
    return head.replace(length, f"content-length: {len(body)}".encode()) + b"\r\n\r\n" + body


UNREADABLE: dict[str, Callable[[bytes], bytes]] = {
    "all names twice": lambda body: body[:-1] + b", " + body[1:],
    "a name twice, and it differs": lambda body: body[:-1] + b', "more": 1, "more": 2}',
    "another status first": lambda body: b'{"status": "rejected", "code": "?", ' + body[1:-1] + b', "code": "?"}',
    "a name twice, further in": lambda body: body[:-1] + b', "more": [{"a": {"b": 1, "b": 1}}]}',
    "no number": lambda body: body[:-1] + b', "price": NaN}',
    "no number, further in": lambda body: body[:-1] + b', "more": [-Infinity]}',
    "a number beyond all bounds": lambda body: body[:-1] + b', "price": 1e99999999999999999999}',
    "a byte-order mark": lambda body: b"\xef\xbb\xbf" + body,
    "UTF-16": lambda body: body.decode().encode("utf-16"),
    "not UTF-8": lambda body: body[:-1] + b', "text": "\xe9"}',
    "nested without end": lambda body: body[:-1] + b', "more": ' + b"[" * 20_000 + b"]" * 20_000 + b"}",
    "two objects": lambda body: body + body,
}
"""Ways to spoil a good answer, so that a lenient reader still finds in it what it looks for."""


class VenueConformance:
    # What a subclass says of its venue.

    def make(self, url: str, **changes: Any) -> Venue:
        """The adapter for a venue at this address; `timeout_seconds` and `in_flight` may be changed."""
        raise NotImplementedError

    def accepted(self, order: NewOrder, venue_order_id: str = "V-1") -> bytes:
        """The venue's reply to an order that it took."""
        raise NotImplementedError

    def refused(self, code: str, text: str) -> bytes:
        """Its reply to an order that it refuses, by `definite_code` or a code that it never documented."""
        raise NotImplementedError

    definite_code: str

    content_code: str
    """By this code the venue documents that it refuses any copy of the order, too."""

    moment_code: str
    """By this code it refuses for good, too, but because of the present state: another copy may be accepted."""

    def duplicate(self) -> bytes:
        """Its reply to a client_order_id that it knows."""
        raise NotImplementedError

    def limited(self, retry_after: str) -> bytes:
        """Its reply to a request that it discarded because there were too many."""
        raise NotImplementedError

    def reported(self, order: NewOrder, status: ReportStatus, code: str = "", text: str = "") -> bytes:
        """Its reply when asked for an order."""
        raise NotImplementedError

    def unknown(self) -> bytes:
        """Its reply when asked for an order that it never had."""
        raise NotImplementedError

    def sent(self, request: Request) -> dict[str, Any]:
        """The order in a request, as the venue would read it, by the names of NewOrder."""
        raise NotImplementedError

    def asked_for(self, request: Request) -> str:
        """The client_order_id that a request asks for."""
        raise NotImplementedError

    # Of a venue that cancels and replaces.

    def amended(self, request: CancelRequest | ReplaceRequest) -> bytes:
        """Its reply that it did what was asked, 40 being filled before."""
        raise NotImplementedError

    def amendment_taken(self, request: CancelRequest | ReplaceRequest) -> bytes:
        """Its reply that it has the request, and promises nothing."""
        raise NotImplementedError

    def amendment_refused(self, by_end: bool) -> bytes:
        """Its definite refusal, because the order has ended, or for another reason."""
        raise NotImplementedError

    def amendment_stale(self) -> bytes:
        """Its reply that the request came too late and is void."""
        raise NotImplementedError

    def amendment_in_doubt(self) -> list[bytes]:
        """Answers of which none proves that nothing was done."""
        raise NotImplementedError

    def amendment(self, request: Request) -> dict[str, Any]:
        """The cancel or replace in a request: its `kind`, ids by the names of ReplaceRequest, and its terms."""
        raise NotImplementedError

    @asynccontextmanager
    async def open(self, url: str, **changes: Any) -> AsyncIterator[Venue]:
        venue = self.make(url, **changes)
        try:
            yield venue
        finally:
            await venue.close()

    # Answers.

    @asynchronous
    async def test_place_returns_the_acknowledgement(self) -> None:
        async with Peer(wire.send(self.accepted(ORDER, "V-77"))) as peer, self.open(peer.url) as venue:
            assert await venue.place(ORDER) == Acknowledgement(venue_order_id="V-77")
            assert len(peer.requests) == 1

    @asynchronous
    async def test_place_sends_the_same_identifier_on_every_attempt(self) -> None:
        async with Peer(wire.send(self.accepted(ORDER))) as peer, self.open(peer.url) as venue:
            for _ in range(2):
                await venue.place(ORDER)
            assert {self.sent(request)["client_order_id"] for request in peer.requests} == {ORDER.client_order_id}

    @pytest.mark.parametrize(
        ("price", "on_the_wire"),
        [
            ("187.25", "187.25"),
            ("187.25000000", "187.25"),
            ("100.10", "100.1"),
            ("100.00000000", "100"),
            ("1E+2", "100"),
            ("1200", "1200"),
            ("0.00000001", "0.00000001"),
            ("1E-8", "0.00000001"),
            ("0.1", "0.1"),
            ("1234567890.12345678", "1234567890.12345678"),
        ],
    )
    @asynchronous
    async def test_place_sends_prices_exactly_and_as_plain_text(self, price: str, on_the_wire: str) -> None:
        """As a row has them, with eight decimal places: what a strict venue would take for a price below its tick."""
        order = replace(ORDER, type="stop_limit", limit_price=Decimal(price), stop_price=Decimal(price))
        async with Peer(wire.send(self.accepted(order))) as peer, self.open(peer.url) as venue:
            await venue.place(order)
            sent = self.sent(peer.requests[0])
            assert (sent["limit_price"], sent["stop_price"]) == (on_the_wire, on_the_wire)

    @asynchronous
    async def test_place_sends_the_whole_order(self) -> None:
        order = replace(
            ORDER, time_in_force="gtd", expires_at=datetime(2099, 12, 31, 20, tzinfo=UTC), quantity=2**53 + 1
        )
        async with Peer(wire.send(self.accepted(order))) as peer, self.open(peer.url) as venue:
            await venue.place(order)
            sent = self.sent(peer.requests[0])
        assert sent["quantity"] == 2**53 + 1
        assert datetime.fromisoformat(sent["expires_at"]) == order.expires_at
        assert (sent["instrument"], sent["side"], sent["type"]) == ("US0378331005", "buy", "limit")
        assert (sent["time_in_force"], sent["stop_price"]) == ("gtd", None)

    @asynchronous
    async def test_place_raises_order_rejected_on_a_definite_refusal(self) -> None:
        refusal = self.refused(self.definite_code, "zu groß · 数量超过上限")
        async with Peer(wire.send(refusal)) as peer, self.open(peer.url) as venue:
            with pytest.raises(OrderRejected) as raised:
                await venue.place(ORDER)
        assert (raised.value.code, raised.value.text) == (self.definite_code, "zu groß · 数量超过上限")

    @asynchronous
    async def test_a_refusal_for_what_the_order_says_is_told_from_one_of_the_moment(self) -> None:
        for code, by_content in ((self.content_code, True), (self.moment_code, False)):
            found = self.reported(ORDER, ReportStatus.REJECTED, code, "no")
            async with (
                Peer(wire.send(self.refused(code, "no")), wire.send(found)) as peer,
                self.open(peer.url) as venue,
            ):
                with pytest.raises(OrderRejected) as raised:
                    await venue.place(ORDER)
                report = await venue.find(ORDER.client_order_id)
            assert (raised.value.code, raised.value.by_content) == (code, by_content)
            assert report is not None
            assert (report.code, report.by_content) == (code, by_content)

    @asynchronous
    async def test_a_refusal_carries_only_text_that_a_database_takes(self) -> None:
        refusal = self.refused(self.definite_code, "a\0b\ud800c" + "x" * 10_000)
        async with Peer(wire.send(refusal)) as peer, self.open(peer.url) as venue:
            with pytest.raises(OrderRejected) as raised:
                await venue.place(ORDER)
        assert "\0" not in raised.value.text
        assert len(raised.value.text.encode()) < 2_000

    @asynchronous
    async def test_a_refusal_that_the_venue_never_documented_is_no_refusal(self) -> None:
        async with Peer(wire.send(self.refused("timed_out", "?"))) as peer, self.open(peer.url) as venue:
            with pytest.raises(OutcomeUnknown):
                await venue.place(ORDER)

    @asynchronous
    async def test_place_takes_a_duplicate_for_an_earlier_attempt_that_arrived(self) -> None:
        async with Peer(wire.send(self.duplicate())) as peer, self.open(peer.url) as venue:
            with pytest.raises(OutcomeUnknown) as raised:
                await venue.place(ORDER)
        assert raised.value.code == "duplicate_client_order_id"

    @pytest.mark.parametrize(
        ("header", "seconds"),
        [
            ("7", 7.0),
            ("0", 0.0),
            ("soon", None),
            ("-1", None),
            ("nan", None),
            ("1e15", 86_400.0),
            ("9" * 400, 86_400.0),
            ("Wed, 21 Oct 2015 07:28:09 GMT", 9.0),
            ("Wednesday, 21-Oct-15 07:28:09 GMT", 9.0),
            ("Wed Oct 21 07:28:09 2015", 9.0),
            ("Wed, 21 Oct 2015 07:27:00 GMT", 0.0),
            ("Fri, 31 Dec 9999 23:59:59 GMT", 86_400.0),
            ("Wed, 21 Oct 99999 07:28:09 GMT", None),
        ],
    )
    @asynchronous
    async def test_a_request_discarded_by_a_rate_limit_was_not_sent_and_pauses_the_venue(
        self, header: str, seconds: float | None
    ) -> None:
        limited = self.limited(header).replace(b"\r\n", b"\r\nDate: Wed, 21 Oct 2015 07:28:00 GMT\r\n", 1)
        async with Peer(wire.send(limited)) as peer, self.open(peer.url) as venue:
            for call in (venue.place(ORDER), venue.find(ORDER.client_order_id)):
                with pytest.raises(NotSent) as raised:
                    await call
                assert raised.value.trouble is VenueTrouble.PAUSED
                assert raised.value.retry_after == seconds

    @pytest.mark.parametrize(
        ("status", "headers", "seconds"),
        [(429, {}, None), (429, {"retry_after": "8"}, 8.0), (503, {"retry_after": "8"}, 8.0)],
    )
    @asynchronous
    async def test_a_pause_that_somebody_asks_for_holds_and_proves_nothing_of_the_request(
        self, status: int, headers: dict[str, str], seconds: float | None
    ) -> None:
        page = reply(status, body=b"<html>busy</html>", content_type="text/html", **headers)
        async with Peer(wire.send(page)) as peer, self.open(peer.url) as venue:
            for call in (venue.place(ORDER), venue.find(ORDER.client_order_id)):
                with pytest.raises(OutcomeUnknown) as raised:
                    await call
                assert (raised.value.trouble, raised.value.retry_after) == (VenueTrouble.PAUSED, seconds)

    @asynchronous
    async def test_trouble_within_the_venue_is_no_pause(self) -> None:
        async with Peer(wire.send(reply(503, {}))) as peer, self.open(peer.url) as venue:
            with pytest.raises(OutcomeUnknown) as raised:
                await venue.place(ORDER)
        assert raised.value.trouble is None

    def not_let_in(self) -> list[bytes]:
        """Its replies to credentials that it refuses, whatever is asked of it."""
        raise NotImplementedError

    @asynchronous
    async def test_a_request_not_let_in_was_not_sent_and_the_venue_is_locked(self) -> None:
        for refused in self.not_let_in():
            async with Peer(wire.send(refused)) as peer, self.open(peer.url) as venue:
                for call in (venue.place(ORDER), venue.find(ORDER.client_order_id)):
                    with pytest.raises(NotSent) as raised:
                        await call
                    assert raised.value.trouble is VenueTrouble.LOCKED_OUT

    # What proves that nothing arrived.

    @asynchronous
    async def test_a_refused_connection_means_not_sent(self) -> None:
        with wire.refusing_url() as url:
            async with self.open(url) as venue:
                with pytest.raises(NotSent):
                    await venue.place(ORDER)
                with pytest.raises(NotSent):
                    await venue.find(ORDER.client_order_id)

    @asynchronous
    async def test_no_connection_in_time_means_not_sent(self) -> None:
        with wire.unreachable_url() as url:
            async with self.open(url, timeout_seconds=QUICK) as venue:
                with pytest.raises(NotSent):
                    await venue.place(ORDER)

    @asynchronous
    async def test_no_free_connection_in_time_means_not_sent(self) -> None:
        async with Peer(wire.stall) as peer, self.open(peer.url, timeout_seconds=0.6, in_flight=1) as venue:
            first = asyncio.create_task(venue.place(ORDER))
            await asyncio.sleep(0.3)
            later = [asyncio.create_task(venue.place(ORDER)) for _ in range(2)]
            outcomes = await asyncio.gather(first, *later, return_exceptions=True)
            # The second had the first one's connection in time; the third gave up before the second was done.
            assert [type(outcome) for outcome in outcomes] == [OutcomeUnknown, OutcomeUnknown, NotSent]
            assert len(peer.requests) == 2

    @asynchronous
    async def test_waiting_for_a_connection_leaves_the_call_its_whole_deadline(self) -> None:
        slow = wire.send_late(self.accepted(ORDER), 0.6)
        async with Peer(slow) as peer, self.open(peer.url, timeout_seconds=1.0, in_flight=1) as venue:
            outcomes = await asyncio.gather(venue.place(ORDER), venue.place(ORDER))
            assert [outcome.venue_order_id for outcome in outcomes] == ["V-1", "V-1"]

    # What may have arrived.

    async def _place_is_unknown(self, script: wire.Script, **changes: Any) -> None:
        """The outcome is unknown, and the request went out once."""
        async with Peer(script) as peer, self.open(peer.url, **changes) as venue:
            with pytest.raises(OutcomeUnknown):
                await venue.place(ORDER)
            assert len(peer.requests) == 1

    @asynchronous
    async def test_no_reply_in_time_is_unknown(self) -> None:
        async with Peer(wire.stall) as peer, self.open(peer.url, timeout_seconds=QUICK) as venue:
            with pytest.raises(OutcomeUnknown):
                await venue.place(ORDER)
            await peer.quiet()  # the adapter left, and took the connection with it

    @asynchronous
    async def test_giving_up_resets_the_connection(self) -> None:
        """A reset drops what our kernel has not delivered; a plain close would go on delivering it."""
        ends: list[BaseException | bytes] = []

        async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                ends.append(await reader.read())
            except ConnectionResetError as error:
                ends.append(error)
            writer.close()

        async with Peer(script) as peer, self.open(peer.url, timeout_seconds=QUICK) as venue:
            with pytest.raises(OutcomeUnknown):
                await venue.place(ORDER)
            await peer.quiet()
        assert [type(end) for end in ends] == [ConnectionResetError]

    @asynchronous
    async def test_a_dropped_connection_is_unknown(self) -> None:
        await self._place_is_unknown(wire.drop)

    @asynchronous
    async def test_a_reset_connection_is_unknown(self) -> None:
        await self._place_is_unknown(wire.reset)

    @pytest.mark.parametrize("share", [0.05, 0.4, 0.9])
    @asynchronous
    async def test_a_reply_cut_short_is_unknown(self, share: float) -> None:
        whole = self.accepted(ORDER)
        await self._place_is_unknown(wire.send_and_close(whole[: int(len(whole) * share)]))

    @pytest.mark.parametrize("status", [200, 202, 204, 302, 400, 404, 409, 418, 422, 429, 500, 502, 503, 504, 599])
    @asynchronous
    async def test_a_status_that_says_nothing_of_the_order_is_unknown(self, status: int) -> None:
        body = b"" if status == 204 else b"<html>somebody on the way</html>"
        await self._place_is_unknown(wire.send(reply(status, body=body, content_type="text/html")))

    @pytest.mark.parametrize("body", STRANGE_BODIES)
    @asynchronous
    async def test_a_reply_that_makes_no_sense_is_unknown(self, body: bytes) -> None:
        for status in (200, 201, 404, 422):
            await self._place_is_unknown(wire.send(reply(status, body=body)))

    @pytest.mark.parametrize("twist", UNREADABLE.values(), ids=UNREADABLE)
    @asynchronous
    async def test_an_answer_that_is_not_strict_json_is_unknown(self, twist: Callable[[bytes], bytes]) -> None:
        await self._place_is_unknown(wire.send(twisted(self.accepted(ORDER), twist)))
        await self._place_is_unknown(wire.send(twisted(self.refused(self.definite_code, "no"), twist)))
        for found in (self.reported(ORDER, ReportStatus.WORKING), self.unknown()):
            async with Peer(wire.send(twisted(found, twist))) as peer, self.open(peer.url) as venue:
                with pytest.raises(OutcomeUnknown):
                    await venue.find(ORDER.client_order_id)

    @asynchronous
    async def test_a_reply_that_is_not_http_is_unknown(self) -> None:
        await self._place_is_unknown(wire.send(b"\x00\xffSSH-2.0-OpenSSH_9.2\r\n\r\n"))

    @asynchronous
    async def test_an_acknowledgement_of_another_type_is_unknown(self) -> None:
        acknowledgement = self.accepted(ORDER).replace(b"application/json", b"text/html")
        await self._place_is_unknown(wire.send(acknowledgement))

    @asynchronous
    async def test_an_acknowledgement_of_another_order_is_unknown(self) -> None:
        other = replace(ORDER, client_order_id="another")
        await self._place_is_unknown(wire.send(self.accepted(other)))

    @pytest.mark.parametrize("venue_order_id", ["", "V\0", "V\ud800", "V" * 1_000])
    @asynchronous
    async def test_an_acknowledgement_without_a_usable_venue_order_id_is_unknown(self, venue_order_id: str) -> None:
        await self._place_is_unknown(wire.send(self.accepted(ORDER, venue_order_id)))

    @pytest.mark.parametrize("where", ["body", "chunks", "headers"])
    @asynchronous
    async def test_a_reply_far_too_long_is_unknown_and_not_read_to_its_end(self, where: str) -> None:
        head = reply(201, body=b"", content_length="999999999999")
        chunked = reply(201, body=b"", transfer_encoding="chunked").replace(b"content-length: 0\r\n", b"")
        head, piece = {
            "body": (head, b" " * 10_000),
            "chunks": (chunked, b"2710\r\n" + b" " * 10_000 + b"\r\n"),
            "headers": (head[:-2], b"x-more: and more\r\n" * 500),
        }[where]
        read_to_its_end: list[bool] = []
        script = wire.send_far_too_much(head, piece, read_to_its_end)
        async with Peer(script) as peer, self.open(peer.url) as venue:
            with pytest.raises(OutcomeUnknown):
                await venue.place(ORDER)
            await peer.quiet()
        assert not read_to_its_end

    @asynchronous
    async def test_a_compressed_reply_is_unknown(self) -> None:
        """Nobody asked for compression, and a few kilobytes could unpack to gigabytes."""
        body = self.accepted(ORDER).partition(b"\r\n\r\n")[2]
        packed = reply(201, body=gzip.compress(body), content_encoding="gzip")
        await self._place_is_unknown(wire.send(packed))

    @pytest.mark.parametrize("begin", [b"", b"whole head"])
    @asynchronous
    async def test_a_trickled_reply_does_not_stretch_the_deadline(self, begin: bytes) -> None:
        whole = reply(201, body=b" " * 10_000)
        sent_at_once = whole.index(b"\r\n\r\n") + 4 if begin else 0

        async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(whole[:sent_at_once])
            await wire.send_slowly(whole[sent_at_once:])(reader, writer)
            raise AssertionError("the adapter stayed to the end")

        async with Peer(script) as peer, self.open(peer.url, timeout_seconds=QUICK) as venue:
            with pytest.raises(OutcomeUnknown):
                await venue.place(ORDER)
            await peer.quiet()

    @asynchronous
    async def test_a_kept_connection_that_the_venue_closes_is_unknown_and_nothing_is_sent_again(self) -> None:
        scripts = (wire.send(self.accepted(ORDER)), wire.drop)
        async with Peer(*scripts) as peer, self.open(peer.url) as venue:
            await venue.place(ORDER)
            with pytest.raises(OutcomeUnknown):
                await venue.place(ORDER)
            assert len(peer.requests) == 2

    @asynchronous
    async def test_find_is_not_sent_again_either(self) -> None:
        scripts = (wire.send(self.unknown()), wire.drop)
        async with Peer(*scripts) as peer, self.open(peer.url) as venue:
            assert await venue.find(ORDER.client_order_id) is None
            with pytest.raises(OutcomeUnknown):
                await venue.find(ORDER.client_order_id)
            assert len(peer.requests) == 2

    @pytest.mark.parametrize("status", [301, 303, 307, 308])
    @asynchronous
    async def test_a_redirect_is_not_followed(self, status: int) -> None:
        async with Peer(wire.send(self.accepted(ORDER))) as elsewhere:
            moved = reply(status, {}, location=elsewhere.url + "/orders")
            await self._place_is_unknown(wire.send(moved))
            assert elsewhere.requests == []

    @asynchronous
    async def test_proxies_of_the_environment_are_not_used(self, monkeypatch: pytest.MonkeyPatch) -> None:
        with wire.refusing_url() as proxy:
            for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
                monkeypatch.setenv(name, proxy)
            monkeypatch.delenv("no_proxy", raising=False)
            async with Peer(wire.send(self.accepted(ORDER))) as peer, self.open(peer.url) as venue:
                await venue.place(ORDER)

    # find().

    @asynchronous
    async def test_find_reports_a_working_order(self) -> None:
        working = self.reported(ORDER, ReportStatus.WORKING)
        async with Peer(wire.send(working)) as peer, self.open(peer.url) as venue:
            report = await venue.find(ORDER.client_order_id)
            assert report == Report(
                client_order_id=ORDER.client_order_id, status=ReportStatus.WORKING, venue_order_id="V-1"
            )
            assert self.asked_for(peer.requests[0]) == ORDER.client_order_id

    @asynchronous
    async def test_find_reports_why_an_order_was_rejected(self) -> None:
        rejected = self.reported(ORDER, ReportStatus.REJECTED, self.definite_code, "größer als erlaubt")
        async with Peer(wire.send(rejected)) as peer, self.open(peer.url) as venue:
            report = await venue.find(ORDER.client_order_id)
        assert report is not None
        assert report.status is ReportStatus.REJECTED
        assert (report.code, report.text) == (self.definite_code, "größer als erlaubt")

    @asynchronous
    async def test_find_returns_none_only_on_the_venue_s_word(self) -> None:
        async with Peer(wire.send(self.unknown())) as peer, self.open(peer.url) as venue:
            assert await venue.find(ORDER.client_order_id) is None

    @pytest.mark.parametrize("status", [200, 204, 302, 400, 404, 410, 422, 500, 503])
    @asynchronous
    async def test_find_takes_no_other_reply_for_an_answer(self, status: int) -> None:
        for body in (b"", b"{}", b"[]", b"not json"):
            strange = reply(status, body=b"" if status == 204 else body)
            async with Peer(wire.send(strange)) as peer, self.open(peer.url) as venue:
                with pytest.raises(OutcomeUnknown):
                    await venue.find(ORDER.client_order_id)

    @asynchronous
    async def test_find_takes_a_report_of_another_order_for_no_answer(self) -> None:
        other = self.reported(replace(ORDER, client_order_id="another"), ReportStatus.WORKING)
        async with Peer(wire.send(other)) as peer, self.open(peer.url) as venue:
            with pytest.raises(OutcomeUnknown):
                await venue.find(ORDER.client_order_id)

    @asynchronous
    async def test_find_ends_at_its_deadline(self) -> None:
        async with Peer(wire.stall) as peer, self.open(peer.url, timeout_seconds=QUICK) as venue:
            with pytest.raises(OutcomeUnknown):
                await venue.find(ORDER.client_order_id)
            await peer.quiet()

    @pytest.mark.parametrize("client_order_id", ["a/b", "a b?c#d%2F", "größe", "数量"])
    @asynchronous
    async def test_find_asks_for_exactly_the_identifier(self, client_order_id: str) -> None:
        async with Peer(wire.send(self.unknown())) as peer, self.open(peer.url) as venue:
            assert await venue.find(client_order_id) is None
            assert self.asked_for(peer.requests[0]) == client_order_id

    @asynchronous
    async def test_find_shows_an_order_whose_acknowledgement_was_lost(self) -> None:
        scripts = (wire.drop, wire.send(self.reported(ORDER, ReportStatus.WORKING)))
        async with Peer(*scripts) as peer, self.open(peer.url) as venue:
            with pytest.raises(OutcomeUnknown):
                await venue.place(ORDER)
            report = await venue.find(ORDER.client_order_id)
        assert report is not None
        assert report.status is ReportStatus.WORKING

    # The adapter as an object.

    @asynchronous
    async def test_a_cancelled_call_leaves_no_connection_and_frees_its_place(self) -> None:
        scripts = (wire.stall, wire.send(self.accepted(ORDER)))
        async with Peer(*scripts) as peer, self.open(peer.url, in_flight=1) as venue:
            call = asyncio.create_task(venue.place(ORDER))
            await peer.arrived(1)
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
            await peer.quiet()
            await venue.place(ORDER)

    @asynchronous
    async def test_many_calls_are_under_way_at_once(self) -> None:
        async with Peer(wire.stall) as peer, self.open(peer.url, timeout_seconds=5.0) as venue:
            calls = [asyncio.create_task(venue.place(ORDER)) for _ in range(50)]
            await peer.arrived(50)
            for call in calls:
                call.cancel()
            await asyncio.wait(calls)

    @asynchronous
    async def test_close_leaves_no_connection(self) -> None:
        async with Peer(wire.send(self.accepted(ORDER))) as peer:
            async with self.open(peer.url) as venue:
                await venue.place(ORDER)
                assert len(peer.connections) == 1
            await peer.quiet()

    @asynchronous
    async def test_close_ends_calls_under_way_as_unknown(self) -> None:
        async with Peer(wire.stall) as peer, self.open(peer.url) as venue:
            call = asyncio.create_task(venue.place(ORDER))
            await peer.arrived(1)
            await venue.close()
            with pytest.raises(OutcomeUnknown):
                await call

    def test_capabilities_need_no_event_loop_and_no_venue(self) -> None:
        capabilities = self.make("http://127.0.0.1:1").capabilities
        assert capabilities.deadline_seconds > 0
        assert capabilities.settle_seconds > 0
        assert {"market", "limit"} <= capabilities.order_types
        assert "day" in capabilities.times_in_force

    # Cancels and replaces.

    @pytest.mark.parametrize("request_", AMENDMENTS)
    @asynchronous
    async def test_what_is_done_is_told_with_what_was_filled(self, request_: Amendment) -> None:
        async with Peer(wire.send(self.amended(request_))) as peer, self.open(peer.url) as venue:
            done = await amend(venue, request_)
            assert done == Done(
                venue_order_id="V-1", quantity=getattr(request_, "quantity", 100), cumulative_quantity=40
            )

    @pytest.mark.parametrize("request_", AMENDMENTS)
    @asynchronous
    async def test_a_request_says_the_same_on_every_attempt(self, request_: Amendment) -> None:
        async with Peer(wire.send(self.amended(request_))) as peer, self.open(peer.url) as venue:
            for _ in range(2):
                await amend(venue, request_)
            first, second = map(self.amendment, peer.requests)
        assert first == second
        assert first["client_order_id"] == request_.client_order_id
        assert first["order_id"] == request_.order_id
        if isinstance(request_, ReplaceRequest):
            assert (first["kind"], first["quantity"], first["limit_price"]) == ("replace", 80, "187.5")
            assert datetime.fromisoformat(first["expires_at"]) == request_.expires_at

    @pytest.mark.parametrize("request_", AMENDMENTS)
    @asynchronous
    async def test_a_request_that_is_only_taken_promises_nothing(self, request_: Amendment) -> None:
        async with Peer(wire.send(self.amendment_taken(request_))) as peer, self.open(peer.url) as venue:
            assert await amend(venue, request_) == Taken()

    @pytest.mark.parametrize("by_end", [True, False])
    @pytest.mark.parametrize("request_", AMENDMENTS)
    @asynchronous
    async def test_a_definite_refusal_of_a_request_is_one(self, request_: Amendment, by_end: bool) -> None:
        async with Peer(wire.send(self.amendment_refused(by_end))) as peer, self.open(peer.url) as venue:
            with pytest.raises(RequestRefused) as raised:
                await amend(venue, request_)
            assert (raised.value.by_end, raised.value.answered) == (by_end, True)

    @pytest.mark.parametrize("request_", AMENDMENTS)
    @asynchronous
    async def test_a_request_that_came_too_late_was_not_sent(self, request_: Amendment) -> None:
        async with Peer(wire.send(self.amendment_stale())) as peer, self.open(peer.url) as venue:
            with pytest.raises(NotSent):
                await amend(venue, request_)

    @pytest.mark.parametrize("request_", AMENDMENTS)
    @asynchronous
    async def test_any_other_answer_to_a_request_proves_nothing(self, request_: Amendment) -> None:
        other = replace(request_, client_order_id="0192f0c1-7a2b-7c3d-8e4f-0000000000ff")
        spoilt = [twisted(self.amended(request_), twist) for twist in UNREADABLE.values()]
        for answer in (*self.amendment_in_doubt(), self.amended(other), *spoilt):
            async with Peer(wire.send(answer)) as peer, self.open(peer.url) as venue:
                with pytest.raises(OutcomeUnknown):
                    await amend(venue, request_)

    @pytest.mark.parametrize("behave", [wire.stall, wire.reset, wire.drop])
    @pytest.mark.parametrize("request_", AMENDMENTS)
    @asynchronous
    async def test_a_request_without_an_answer_may_have_arrived(self, request_: Amendment, behave: Any) -> None:
        async with Peer(behave) as peer, self.open(peer.url, timeout_seconds=QUICK) as venue:
            with pytest.raises(OutcomeUnknown):
                await amend(venue, request_)

    @pytest.mark.parametrize("request_", AMENDMENTS)
    @asynchronous
    async def test_a_request_to_nobody_was_not_sent(self, request_: Amendment) -> None:
        async with self.open("http://127.0.0.1:9") as venue:
            with pytest.raises(NotSent):
                await amend(venue, request_)

    @asynchronous
    async def test_what_the_capabilities_lack_is_not_supported(self) -> None:
        async with self.open("http://127.0.0.1:1") as venue:
            if not venue.capabilities.cancels:
                with pytest.raises(NotSupported):
                    await venue.cancel(CANCEL)
            if not venue.capabilities.replaces:
                with pytest.raises(NotSupported):
                    await venue.replace(REPLACE)
            if not venue.capabilities.reports:
                with pytest.raises(NotSupported):
                    venue.reports("", 0)
                with pytest.raises(NotSupported):
                    venue.executions("", 0)
                with pytest.raises(NotSupported):
                    venue.open_orders()
                with pytest.raises(NotSupported):
                    await venue.stream_end()
