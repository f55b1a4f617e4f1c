"""The fault laboratory: its plan, its judgement, its proxy, and a short run of all of it."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from benchmarks.faults import saboteur
from benchmarks.faults.invariants import violations
from benchmarks.faults.plan import KINDS as FAULTS
from benchmarks.faults.plan import QUICK, make_plan
from benchmarks.faults.proxy import FaultProxy, Harm
from benchmarks.faults.records import KINDS, Evidence, ForeignRead, Row, Step, Terms, Told, VenueEntry
from benchmarks.management.commands.chaos import Command
from benchmarks.stage.ports import free_ports
from benchmarks.tests import test_after_placement
from exchanges.tests.running import ORDER, RunningExchange, call, running_exchange
from quiktrade.local.venv import ROOT
from quiktrade.tests.places import open_place, processes_of

# ---- The plan ----


def test_the_same_seed_gives_the_same_plan() -> None:
    plan = make_plan(7, seconds=600, per_minute=16)
    assert plan == make_plan(7, seconds=600, per_minute=16)
    assert plan != make_plan(8, seconds=600, per_minute=16)


def test_three_minutes_see_every_kind_of_fault() -> None:
    assert {fault.kind for fault in make_plan(1, seconds=180, per_minute=20)} == set(FAULTS)


def test_thirty_minutes_see_more_than_300_faults_each_kind_as_often_as_any_other() -> None:
    plan = make_plan(1, seconds=1800, per_minute=16)
    counts = [sum(fault.kind == kind for fault in plan) for kind in FAULTS]
    assert len(plan) > 400
    assert max(counts) - min(counts) <= 1


def test_the_saboteur_knows_how_to_do_everything_that_can_be_planned() -> None:
    by_name = {*saboteur.VENUE_FAULTS, *saboteur.HARMS, "proxy_refuse", "lease_theft", "exchange_rename"}
    databases = {kind for kind in FAULTS if kind.startswith(("backend_", "postgres_"))}
    by_signal = {kind for kind in FAULTS if kind.rpartition("_")[2] in (*saboteur.SIGNALS, "freeze")}
    assert set(FAULTS) == by_name | databases | by_signal
    assert set(QUICK) <= set(FAULTS)


def test_an_exchange_with_a_renamed_journal_has_its_reports_in_another_stream(tmp_path: Path) -> None:
    with running_exchange(tmp_path) as exchange:
        assert call(exchange.url, "POST", "/orders", ORDER)[0] == 201
        before = call(exchange.url, "GET", "/reports")[1]
    (journal,) = tmp_path.glob("*.jsonl")
    saboteur.rename_stream(journal)
    with running_exchange(tmp_path) as exchange:
        after = call(exchange.url, "GET", "/reports")[1]
    assert after["stream"] != before["stream"]
    assert after["reports"] == before["reports"]


# ---- The judgement ----

CONTENT = ("US0378331005", "buy", "limit", 100)
TOLD = Told(
    client_order_id="c-1", owner="alice", content=CONTENT, first_sent_at=1.0, accepted_at=2.0, order_ids={"o-1"}
)
ROW = Row("o-1", "alice", "c-1", CONTENT, "placed", False, 1, 3, "S-1", Terms(100))
HISTORY = [
    Step(1, "accepted", "", "pending", 0, 2.0, ""),
    Step(2, "claimed", "pending", "submitting", 1, 2.1, ""),
    Step(3, "acknowledged", "submitting", "placed", 1, 2.2, ""),
]
LIVE = VenueEntry("o-1", "S-1", "working", "2026-01-31T09:30:00+00:00")
CLEAN = Evidence(told=[TOLD], rows=[ROW], histories={"o-1": HISTORY}, ledger=[LIVE], foreign_reads=[])


def _ended(event: str, status: str) -> dict[str, Any]:
    """Evidence of an order that came to this end in its third step."""
    last = HISTORY[1]._replace(sequence=3, event=event, from_status="submitting", to_status=status)
    return {"rows": [ROW._replace(status=status, venue_order_id="")], "histories": {"o-1": [*HISTORY[:2], last]}}


def _history(*steps: Step, version: int = 3) -> dict[str, Any]:
    return {"rows": [ROW._replace(version=version)], "histories": {"o-1": steps}}


def _off_the_queue(event: str, status: str) -> dict[str, Any]:
    second = Step(2, event, "pending", status, 0, 2.1, "")
    row = ROW._replace(status=status, venue_order_id="", version=2, attempt=0)
    return {"rows": [row], "histories": {"o-1": [HISTORY[0], second]}}


WRONG: list[tuple[str, dict[str, Any]]] = [
    ("placed twice", {"ledger": [LIVE, LIVE._replace(venue_order_id="S-2")]}),
    ("live without a row", {"ledger": [LIVE, LIVE._replace(client_order_id="o-2")]}),
    ("never finished", {**_ended("outcome_unknown", "unconfirmed"), "ledger": []}),
    ("rejected but live", _ended("rejected_by_venue", "rejected")),
    ("failed but live", _off_the_queue("attempts_exhausted", "failed")),
    ("expired but live", _off_the_queue("place_by_passed", "expired")),
    ("canceled but live", _off_the_queue("cancel_requested", "canceled")),
    ("placed but not live", {"ledger": []}),
    ("placed but not live", {"ledger": [LIVE._replace(status="rejected")]}),
    ("placed but not live", {"ledger": [LIVE._replace(venue_order_id="S-9")]}),
    ("lost", {"rows": [], "histories": {}, "ledger": []}),
    ("changed", {"rows": [ROW._replace(content=(*CONTENT[:3], 1_000))]}),
    ("changed", {"rows": [ROW._replace(owner="bob")]}),
    ("one key, two orders", {"told": [replace(TOLD, order_ids={"o-1", "o-2"})]}),
    ("one key, two orders", {"rows": [ROW, ROW._replace(id="o-2")]}),
    ("refused but kept", {"told": [replace(TOLD, refused="400")]}),
    ("audit gap", {"histories": {}}),
    ("audit gap", {"histories": {"o-1": HISTORY, "o-2": HISTORY}}),
    ("audit gap", _history(HISTORY[0], HISTORY[2])),
    ("audit gap", _history(*HISTORY, version=4)),
    ("audit gap", _history(HISTORY[0], HISTORY[1], HISTORY[2]._replace(from_status="unconfirmed"))),
    ("audit gap", _history(HISTORY[0], HISTORY[1], HISTORY[2]._replace(to_status="failed"))),
    ("audit gap", _history(HISTORY[0]._replace(event="requeued"), *HISTORY[1:])),
    ("audit gap", _history(*HISTORY[:2], HISTORY[2]._replace(attempt=2))),
    ("audit gap", {"rows": [ROW._replace(attempt=2)]}),
    ("foreign read", {"foreign_reads": [ForeignRead(reader="bob", order_id="o-1", http_status=200)]}),
]


def test_nothing_is_wrong_with_clean_evidence() -> None:
    assert violations(CLEAN) == []


def test_every_kind_of_violation_is_tried() -> None:
    assert {what for what, _ in [*WRONG, *test_after_placement.WRONG]} == set(KINDS)


@pytest.mark.parametrize(("what", "changes"), WRONG)
def test_a_violation_is_found(what: str, changes: dict[str, Any]) -> None:
    assert what in {violation.what for violation in violations(replace(CLEAN, **changes))}


@pytest.mark.parametrize(
    "changes",
    [
        {"ledger": [LIVE, LIVE._replace(venue_order_id="S-2", status="rejected")]},
        {**_ended("rejected_by_venue", "rejected"), "ledger": []},
        {**_off_the_queue("cancel_requested", "canceled"), "ledger": []},
        {"told": [replace(TOLD, accepted_at=None, order_ids=set())]},
        {"foreign_reads": [ForeignRead(reader="bob", order_id="o-1", http_status=404)]},
    ],
)
def test_what_is_no_violation_is_not_called_one(changes: dict[str, Any]) -> None:
    assert violations(replace(CLEAN, **changes)) == []


def test_an_order_left_to_an_operator_is_finished() -> None:
    parked = _ended("outcome_unknown", "unconfirmed")
    parked["rows"] = [row._replace(parked=True) for row in parked["rows"]]
    assert violations(replace(CLEAN, **parked, ledger=[])) == []


# ---- The proxy ----


@pytest.fixture
def behind_proxy(tmp_path: Path) -> Iterator[tuple[RunningExchange, FaultProxy]]:
    with running_exchange(tmp_path) as exchange:
        proxy = FaultProxy(free_ports(1)[0], int(exchange.url.rpartition(":")[2]))
        proxy.start()
        try:
            yield exchange, proxy
        finally:
            proxy.stop()


def _place(proxy: FaultProxy) -> tuple[int, Any]:
    return call(f"http://127.0.0.1:{proxy.port}", "POST", "/orders", ORDER)


def test_the_proxy_passes_requests_on(behind_proxy: tuple[RunningExchange, FaultProxy]) -> None:
    exchange, proxy = behind_proxy
    assert _place(proxy)[0] == 201
    assert len(exchange.orders()) == 1


@pytest.mark.parametrize(("mode", "arrives"), [("reset_before", 0), ("reset_after", 1), ("drop_reply", 1)])
def test_the_proxy_loses_a_request_or_its_reply(
    behind_proxy: tuple[RunningExchange, FaultProxy], mode: str, arrives: int
) -> None:
    exchange, proxy = behind_proxy
    proxy.set("harm", Harm(mode))
    with pytest.raises((ConnectionError, EOFError, OSError)):
        _place(proxy)
    assert len(exchange.orders()) == arrives


def test_the_proxy_delivers_a_request_whose_sender_has_gone(
    behind_proxy: tuple[RunningExchange, FaultProxy],
) -> None:
    exchange, proxy = behind_proxy
    proxy.set("harm", Harm("hold", seconds=(0.3, 0.3)))
    body = json.dumps(ORDER).encode()
    head = f"POST /orders HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    with socket.create_connection(("127.0.0.1", proxy.port)) as sender:
        sender.sendall(head.encode() + body)
    assert exchange.orders() == []
    _wait_until(lambda: len(exchange.orders()) == 1)


def test_the_proxy_refuses_connections_until_it_is_told_not_to(
    behind_proxy: tuple[RunningExchange, FaultProxy],
) -> None:
    _, proxy = behind_proxy
    proxy.refuse(True)
    with pytest.raises(ConnectionRefusedError):
        _place(proxy)
    proxy.refuse(False)
    assert _place(proxy)[0] == 201


async def _reports(proxy: FaultProxy, count: int) -> list[str]:
    """The kinds of the first reports that come over the stream. Raises: aiohttp.ClientError, TypeError at its end."""
    url = f"http://127.0.0.1:{proxy.port}/reports?after=0"
    kinds: list[str] = []
    async with aiohttp.ClientSession() as session, session.ws_connect(url) as socket:
        while len(kinds) < count:
            content = await socket.receive_json(timeout=30)
            kinds += [report["kind"] for report in content.get("reports", ())]
    return kinds


def test_the_proxy_passes_a_stream_on_and_breaks_it_off(behind_proxy: tuple[RunningExchange, FaultProxy]) -> None:
    _, proxy = behind_proxy
    assert _place(proxy)[0] == 201
    assert asyncio.run(_reports(proxy, 1)) == ["new"]
    breaking = threading.Timer(0.5, proxy.refuse, [True])
    breaking.start()
    with pytest.raises((aiohttp.ClientError, TypeError)):
        asyncio.run(_reports(proxy, 2))
    breaking.join()


@pytest.mark.parametrize("mode", ["reset_before", "reset_after", "drop_reply"])
def test_the_proxy_keeps_a_stream_from_beginning(behind_proxy: tuple[RunningExchange, FaultProxy], mode: str) -> None:
    _, proxy = behind_proxy
    proxy.set("harm", Harm(mode))
    with pytest.raises(aiohttp.ClientError):
        asyncio.run(_reports(proxy, 1))
    proxy.set("harm", None)
    assert _place(proxy)[0] == 201
    assert asyncio.run(_reports(proxy, 1)) == ["new"]


# ---- The whole ----


def _chaos(place: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "manage.py", "chaos", "--keep", str(place / "run"), *arguments],
        cwd=ROOT,
        env={name: value for name, value in os.environ.items() if name != "DATABASE_URL"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def _wait_until(condition: Any, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not so after {seconds:g} s"
        time.sleep(0.05)


def _read_until(process: subprocess.Popen[str], words: str) -> str:
    assert process.stdout is not None
    said: str = ""
    for line in process.stdout:
        said += str(line)
        if words in said:
            return said
    raise AssertionError(f"it ended without saying {words!r}:\n{said}")


@pytest.mark.timeout(300)
@pytest.mark.exhaustive
def test_a_short_run_finds_nothing_wrong_and_leaves_nothing_behind() -> None:
    with open_place() as place:
        process = _chaos(place, "--quick", "--seed", "3", "--json", str(place / "figures.json"))
        said, _ = process.communicate(timeout=280)
        assert process.returncode == 0, said
        figures = json.loads((place / "figures.json").read_text())
        assert figures["passed"]
        assert sum(figures["faults"].values()) == len(QUICK)
        assert figures["accepted"] > 100
        assert figures["placed_once"] > 100
        _wait_until(lambda: processes_of(place) == [], seconds=10.0)


@pytest.mark.timeout(300)
@pytest.mark.exhaustive
def test_a_run_that_is_killed_leaves_no_process_behind() -> None:
    with open_place() as place:
        process = _chaos(place, "--minutes", "5", "--rate", "5")
        try:
            _read_until(process, "The system is up")
            process.kill()
            _wait_until(lambda: not processes_of(place))
        finally:
            process.kill()
            process.communicate()


@pytest.mark.timeout(300)
@pytest.mark.exhaustive
def test_a_run_that_is_interrupted_still_gives_its_figures() -> None:
    with open_place() as place:
        process = _chaos(place, "--minutes", "5", "--rate", "5", "--faults-per-minute", "0")
        try:
            _read_until(process, "The system is up")
            time.sleep(1)
            process.send_signal(signal.SIGINT)
            said, _ = process.communicate(timeout=200)
        finally:
            process.kill()
        assert "accepted (201)" in said
        assert process.returncode == 0, said
        _wait_until(lambda: processes_of(place) == [], seconds=10.0)


@pytest.mark.parametrize("arguments", [["--minutes", "0"], ["--rate", "many"], ["--clients", "1000"], ["--sed", "1"]])
def test_wrong_usage_ends_with_status_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    command = Command()
    command._called_from_command_line = True  # type: ignore[attr-defined]
    with pytest.raises(SystemExit) as ended:
        command.create_parser("manage.py", "chaos").parse_args(arguments)
    assert ended.value.code == 2
    assert "usage" in capsys.readouterr().err
