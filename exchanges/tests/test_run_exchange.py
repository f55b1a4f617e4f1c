"""The simulated exchange as a process: what it remembers, how it starts and how it stops."""

import argparse
import asyncio
import json
import resource
import signal
import socket
import subprocess
import sys
import tracemalloc
from dataclasses import replace
from pathlib import Path

import pytest
from django.core.management.base import CommandError

from exchanges.adapters.simulator import SimulatorVenue
from exchanges.management.commands.run_exchange import Command
from exchanges.simulator.exchange import Exchange, Rules
from exchanges.simulator.journal import JournalError, open_journal
from exchanges.simulator.options import add_arguments, default_journal, read_options
from exchanges.simulator.validation import Refusal, read_order
from exchanges.tests.conformance import ORDER
from exchanges.tests.running import ORDER as RUNNING_ORDER
from exchanges.tests.running import STOP_SECONDS, RunningExchange, running_exchange
from exchanges.venue import OutcomeUnknown, VenueError
from quiktrade.local.venv import ROOT


def run_to_its_end(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "exchanges.simulator", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=30)


def test_it_remembers_orders_and_refusals_across_a_restart(tmp_path: Path) -> None:
    with running_exchange(tmp_path, "--max-quantity", "1000") as exchange:
        _, accepted = exchange.place(client_order_id="kept")
        exchange.place(client_order_id="refused", quantity=1001)
        before = exchange.orders()
        assert exchange.stop() == 0
        exchange.start()
        assert exchange.remembered == 2
        assert exchange.orders() == before
        assert exchange.find("kept")[1]["venue_order_id"] == accepted["venue_order_id"]
        assert exchange.find("refused")[1]["status"] == "rejected"
        assert exchange.place(client_order_id="kept")[0] == 409
        _, next_accepted = exchange.place(client_order_id="new")
        assert next_accepted["venue_order_id"] not in {order["venue_order_id"] for order in before}


def test_a_new_journal_never_repeats_a_venue_order_id(tmp_path: Path) -> None:
    identifiers = set()
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        with running_exchange(tmp_path / name) as exchange:
            identifiers.add(exchange.place()[1]["venue_order_id"])
    assert len(identifiers) == 2


def test_memory_does_not_grow_with_the_orders(tmp_path: Path) -> None:
    request = read_order(json.dumps(RUNNING_ORDER).encode())

    async def fill(exchange: Exchange, orders: range) -> int:
        tracemalloc.start()
        for number in orders:
            await exchange.accept(replace(request, client_order_id=f"c{number}"))
        grown, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return grown

    journal, ledger = open_journal(tmp_path / "journal.jsonl", fsync=False)
    exchange = Exchange(journal, ledger, Rules())
    grown = asyncio.run(fill(exchange, range(5_000)))
    assert grown < 100_000, "20 bytes an order at most: a thirtieth of one kept in memory"
    for number in (0, 2_500, 4_999):  # and yet every one is known
        found = ledger.latest(f"c{number}")
        assert found is not None
        assert found.sequence == number + 1
        with pytest.raises(Refusal, match="duplicate_client_order_id"):
            asyncio.run(exchange.accept(replace(request, client_order_id=f"c{number}")))
    assert [order.sequence for order in ledger.page(after=4_997, limit=10)] == [4_998, 4_999, 5_000]
    ledger.close()


def test_doubles_are_counted_and_the_latest_found_across_a_restart(tmp_path: Path) -> None:
    with running_exchange(tmp_path, "--fault", "forget_duplicates", "--max-quantity", "1000") as exchange:
        for quantity in (100, 200, 1001):
            exchange.place(client_order_id="twice", quantity=quantity)
        before = exchange.orders()
        exchange.kill()
        exchange.start()
        stats = exchange.stats()
        assert (stats["orders"], stats["working"], stats["rejected"], stats["doubles"]) == (3, 2, 1, 1)
        assert exchange.orders() == before
        assert exchange.find("twice")[1]["status"] == "rejected"
        _, page = exchange.admin("GET", "/orders?limit=2&after=0")
        assert ([order["quantity"] for order in page["orders"]], page["next"]) == ([100, 200], 2)


def test_an_order_that_cannot_be_indexed_ends_the_exchange(tmp_path: Path) -> None:
    journal, ledger = open_journal(tmp_path / "journal.jsonl", fsync=False)
    exchange = Exchange(journal, ledger, Rules())
    request = read_order(json.dumps(RUNNING_ORDER).encode())
    asyncio.run(exchange.accept(request))
    ledger._index.execute("PRAGMA query_only = on")
    with pytest.raises(JournalError, match="cannot index"):
        asyncio.run(exchange.accept(replace(request, client_order_id="next")))
    ledger.close()


async def place_until_it_dies(exchange: RunningExchange, after: int) -> dict[str, str]:
    """Place orders, 20 at a time, and SIGKILL the exchange meanwhile. Returns those that were acknowledged."""
    venue = SimulatorVenue({"url": exchange.url})
    acknowledged: dict[str, str] = {}

    async def member(name: str) -> None:
        for number in range(10_000):
            client_order_id = f"{name}-{number}"
            try:
                acknowledgement = await venue.place(replace(ORDER, client_order_id=client_order_id))
            except VenueError:
                return
            acknowledged[client_order_id] = acknowledgement.venue_order_id
            if len(acknowledged) == after:
                exchange.process.send_signal(signal.SIGKILL)

    try:
        await asyncio.gather(*(member(f"m{number}") for number in range(20)))
    finally:
        await venue.close()
    return acknowledged


@pytest.mark.exhaustive
@pytest.mark.parametrize("options", [(), ("--fsync",)])
def test_sigkill_loses_no_acknowledged_order(tmp_path: Path, options: tuple[str, ...]) -> None:
    with running_exchange(tmp_path, *options) as exchange:
        acknowledged = asyncio.run(place_until_it_dies(exchange, after=300))
        assert len(acknowledged) >= 300
        exchange.kill()
        exchange.start()
        ledger = exchange.orders()
        kept = {order["client_order_id"]: order["venue_order_id"] for order in ledger}
        assert len(kept) == len(ledger)
        assert acknowledged.items() <= kept.items()


@pytest.mark.exhaustive
@pytest.mark.parametrize("torn", [b'{"sequence":3,"client_or', b"\0\0\0", b'{"sequence":3}'])
def test_a_torn_last_line_is_cut_off(tmp_path: Path, torn: bytes) -> None:
    with running_exchange(tmp_path) as exchange:
        for name in ("a", "b"):
            exchange.place(client_order_id=name)
        exchange.kill()
        with exchange.journal.open("ab") as journal:
            journal.write(torn)
        exchange.start()
        assert exchange.remembered == 2
        assert exchange.place(client_order_id="c")[0] == 201
        exchange.kill()
        exchange.start()
        assert [order["client_order_id"] for order in exchange.orders()] == ["a", "b", "c"]


def test_a_journal_torn_in_its_first_line_begins_anew(tmp_path: Path) -> None:
    (tmp_path / "journal.jsonl").write_bytes(b'{"jour')
    with running_exchange(tmp_path) as exchange:
        assert exchange.place()[0] == 201
        exchange.kill()
        exchange.start()
        assert exchange.remembered == 1


@pytest.mark.parametrize("line", [b"garbage\n", b'{"journal":2,"prefix":"x"}\n', b"[]\n", b"{}\n"])
def test_a_journal_that_cannot_be_read_prevents_the_start(tmp_path: Path, line: bytes) -> None:
    journal = tmp_path / "journal.jsonl"
    journal.write_bytes(line)
    ended = run_to_its_end("--port", "0", "--journal", str(journal))
    assert ended.returncode == 1
    assert ended.stderr == f"Simulated exchange: {journal}: line 1 cannot be read; move the file away\n"
    assert journal.read_bytes() == line


def test_two_exchanges_do_not_share_a_journal(tmp_path: Path) -> None:
    with running_exchange(tmp_path) as exchange:
        ended = run_to_its_end("--port", "0", "--journal", str(exchange.journal))
        assert ended.returncode == 1
        assert ended.stderr == f"Simulated exchange: {exchange.journal} is in use by another exchange\n"


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="prlimit is Linux's")
def test_an_exchange_that_cannot_write_its_journal_acknowledges_nothing_and_ends(tmp_path: Path) -> None:
    with running_exchange(tmp_path) as exchange:
        assert exchange.place(client_order_id="before")[0] == 201
        size = exchange.journal.stat().st_size
        resource.prlimit(exchange.process.pid, resource.RLIMIT_FSIZE, (size + 100, size + 100))

        async def place() -> None:
            venue = SimulatorVenue({"url": exchange.url})
            try:
                await venue.place(replace(ORDER, client_order_id="too-much"))
            finally:
                await venue.close()

        with pytest.raises(OutcomeUnknown):
            asyncio.run(place())
        assert exchange.process.wait(STOP_SECONDS) == 1
        exchange.kill()
        exchange.start()
        assert [order["client_order_id"] for order in exchange.orders()] == ["before"]


def test_nothing_is_appended_to_half_a_line(tmp_path: Path) -> None:
    journal, ledger = open_journal(tmp_path / "journal.jsonl", fsync=False)
    ledger.close()
    journal.close()
    with pytest.raises(JournalError, match="cannot write"):
        journal.append({})
    with pytest.raises(JournalError, match="half a line"):
        journal.append({})


@pytest.mark.exhaustive
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_it_cleanly_whatever_is_under_way(tmp_path: Path, number: signal.Signals) -> None:
    with running_exchange(tmp_path, "--fault", "stall:seconds=60") as exchange:

        async def stop_while_busy() -> int:
            venue = SimulatorVenue({"url": exchange.url})
            call = asyncio.create_task(venue.place(ORDER))
            try:
                stats = exchange.stats()
                while stats["requests"]["place"] == 0:
                    await asyncio.sleep(0.01)
                    stats = exchange.stats()
                exchange.process.send_signal(number)
                with pytest.raises(OutcomeUnknown):
                    await call
                return exchange.process.wait(STOP_SECONDS)
            finally:
                await venue.close()

        assert asyncio.run(stop_while_busy()) == 0


def test_a_port_in_use_is_one_clear_line(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        for arguments in (["--port", port, "--admin-port", "0"], ["--port", "0", "--admin-port", port]):
            ended = run_to_its_end(*arguments, "--journal", str(tmp_path / "journal.jsonl"))
            assert ended.returncode == 1
            assert ended.stderr == f"Simulated exchange: cannot listen on port {port}: it is in use\n"
            assert ended.stdout == ""


def test_faults_can_be_set_from_the_start(tmp_path: Path) -> None:
    with running_exchange(tmp_path, "--fault", "refuse", "--fault", "http_5xx:count=1") as exchange:
        with pytest.raises(ConnectionRefusedError):
            exchange.place()
        assert exchange.admin("DELETE", "/admin/faults/refuse")[0] == 200
        assert [exchange.place()[0], exchange.place()[0]] == [503, 201]


def options(*arguments: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return parser.parse_args(arguments)


def test_options_have_sensible_defaults(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("QUIKTRADE_DATA", str(tmp_path))
    chosen = read_options(options())
    assert (chosen.host, chosen.port, chosen.admin_port) == ("127.0.0.1", 8765, 8766)
    assert chosen.journal == tmp_path / "exchange" / "journal.jsonl"
    assert chosen.faults.as_json()["faults"] == {}
    monkeypatch.delenv("QUIKTRADE_DATA")
    assert default_journal() == ROOT / ".data" / "exchange" / "journal.jsonl"


def test_options_read_faults() -> None:
    chosen = read_options(
        options("--latency", "0.1-0.5", "--fault", "http_5xx:probability=0.3,status=502,recorded=true,on=place")
    )
    faults = chosen.faults.as_json()["faults"]
    assert faults["latency"]["seconds"] == (0.1, 0.5)
    assert faults["http_5xx"] == {
        "on": ["place"],
        "probability": 0.3,
        "count": None,
        "struck": 0,
        "status": 502,
        "recorded": True,
    }


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--fault", "stal"), "no fault 'stal'"),
        (("--fault", "stall:seconds"), "'seconds' is not KEY=VALUE"),
        (("--fault", "stall:seconds=long"), "stall: seconds: must be a number"),
        (("--latency", "5-1"), "latency: seconds: 5 is above 1"),
        (("--latency", "nan"), "latency: seconds: must be a number"),
        (("--port", "8765", "--admin-port", "8765"), "--admin-port: must be another port"),
        (("--port", "65535"), "--admin-port: must be another port"),
    ],
)
def test_options_explain_what_is_wrong(arguments: tuple[str, ...], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        read_options(options(*arguments))


def test_the_command_has_the_same_options_and_shows_examples() -> None:
    parser = Command().create_parser("manage.py", "run_exchange")
    text = parser.format_help()
    assert "--reject-instrument ISIN" in text
    assert "\n  curl -X PUT    http://127.0.0.1:8766/admin/faults -d '{\"refuse\": true}'\n" in text


def test_the_command_explains_what_is_wrong() -> None:
    command = Command()
    arguments = command.create_parser("manage.py", "run_exchange").parse_args(["--fault", "stal"])
    with pytest.raises(CommandError, match="no fault 'stal'"):
        command.handle(**vars(arguments))
