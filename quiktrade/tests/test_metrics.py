"""What is counted, and that it is shown right and to nobody else, whatever dies."""

import os
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families

from benchmarks.stage.ports import free_ports
from orders.tests.factories import UserFactory, VenueFactory
from quiktrade.local.venv import ROOT
from quiktrade.metrics.listener import numbers_of_all
from quiktrade.metrics.place import Place
from quiktrade.tests.processes import Process, Processes, wait_until
from quiktrade.tests.test_overload import Client

Numbers = dict[tuple[str, frozenset[tuple[str, str]]], float]


def scraped(port: int) -> Numbers:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        text = answer.read().decode()
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def number(numbers: Numbers, name: str, **labels: str) -> float | None:
    return numbers.get((f"quiktrade_{name}", frozenset(labels.items())))


def is_served(port: int) -> bool:
    try:
        scraped(port)
    except OSError:
        return False
    return True


@pytest.fixture
def metrics(tmp_path: Path) -> dict[str, str]:
    """The environment of processes that show their numbers, in a folder of this test."""
    place = tmp_path / "tmp"
    place.mkdir()
    return {"QUIKTRADE_METRICS_PORT": str(free_ports(1)[0]), "TMPDIR": str(place)}


def port_of(metrics: dict[str, str]) -> int:
    return int(metrics["QUIKTRADE_METRICS_PORT"])


def kill_web_processes(web: Process) -> None:
    """Kill gunicorn's workers, and wait for those that replace them."""
    killed = psutil.Process(web.pid).children()
    for process in killed:
        process.kill()
    gone = {process.pid for process in killed}

    def replaced() -> bool:
        now = {process.pid for process in psutil.Process(web.pid).children()}
        return len(now) == len(gone) and not now & gone

    wait_until(replaced, web)
    web.wait_until_ready()


@pytest.mark.exhaustive
def test_sums_are_exact_however_often_the_processes_are_killed(processes: Processes, metrics: dict[str, str]) -> None:
    web = processes.web(QUIKTRADE_WEB_WORKERS="2", **metrics)
    client = Client(web)
    for generation in range(3):
        assert [client.post(f"{generation}-{n}") for n in range(10)] == [201] * 10
        kill_web_processes(web)
    wait_until(lambda: is_served(port_of(metrics)), web)
    numbers = scraped(port_of(metrics))
    assert number(numbers, "orders_accepted_total", venue="XSIM", how="stored") == 30
    request = {"route": "order-list", "method": "POST", "outcome": "2xx"}
    assert number(numbers, "http_request_seconds_count", **request) == 30
    assert number(numbers, "store_seconds_count") == 30
    files = {file.name for file in Path(metrics["TMPDIR"]).rglob("counter_*.db")}
    assert files <= {"counter_0.db", "counter_1.db"}


WITHOUT_ROOM = """
import resource
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
import django
django.setup()
from quiktrade.metrics.counting import counter
count = counter("trial", "A trial.", "number")
for number in range(2_000):  # far more than there is room for
    count(str(number)).inc()
print("alive")
"""


def test_a_process_without_room_for_its_numbers_goes_on(metrics: dict[str, str]) -> None:
    environment = {**os.environ, **metrics, "DJANGO_SETTINGS_MODULE": "quiktrade.settings"}
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_ROOM], env=environment, cwd=ROOT, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (0, "alive\n"), done.stderr
    assert done.stderr.count("event=metrics.no_room") == 1


def test_the_public_port_shows_no_metrics(processes: Processes, metrics: dict[str, str]) -> None:
    web = processes.web(QUIKTRADE_WEB_WORKERS="1", **metrics)
    assert Client(web).get("/metrics") == 404


@pytest.mark.exhaustive
def test_web_worker_and_session_are_added_up_and_another_answers_when_one_dies(
    processes: Processes, metrics: dict[str, str]
) -> None:
    exchange = processes.exchange()
    VenueFactory(settings={"url": exchange.url})
    web = processes.web(QUIKTRADE_WEB_WORKERS="1", **metrics)
    processes.worker(**metrics)
    session = processes.session(**metrics)
    client = Client(web)
    wait_until(lambda: is_served(port_of(metrics)), web)
    assert [client.post(f"order-{n}") for n in range(5)] == [201] * 5

    def counted() -> bool:
        numbers = scraped(port_of(metrics))
        return number(numbers, "attempts_total", venue="XSIM", event="acknowledged") == 5

    wait_until(counted, web, session)
    web.kill()
    wait_until(lambda: is_served(port_of(metrics)), session)
    numbers = scraped(port_of(metrics))
    assert number(numbers, "orders_accepted_total", venue="XSIM", how="stored") == 5
    assert number(numbers, "orders_claimed_total", venue="XSIM") == 5
    assert number(numbers, "order_wait_seconds_count", venue="XSIM") == 5
    assert number(numbers, "cluster_starts_total") == 1
    assert number(numbers, "database_up") == 1
    assert number(numbers, "orders_pending", venue="XSIM") == 0


def test_a_slot_is_free_again_when_its_process_was_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    parent = Place(9)
    parent.enter()
    assert parent.slot() == "0"
    child = os.fork()
    if not child:
        parent.forget_slot()
        (parent.folder / f"took-{parent.slot()}").touch()
        signal.pause()
    wait_until(lambda: (parent.folder / "took-1").exists())
    other = Place(9)
    other.enter()
    assert other.slot() == "2"
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    last = Place(9)
    last.enter()
    assert last.slot() == "1"


@pytest.mark.django_db
def test_how_a_dead_process_stood_is_forgotten_and_what_it_counted_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    place = Place(9)
    place.enter()
    assert place.slot() == "0"
    for name in ("gauge_livesum_0", "gauge_livesum_1", "counter_0", "counter_1"):  # nobody has the slot 1
        (place.folder / f"{name}.db").write_bytes(bytes(8))  # as a file without numbers begins
    numbers_of_all(place).get_sample_value("any")
    left = {file.name for file in place.folder.glob("*.db")}
    assert left == {"gauge_livesum_0.db", "counter_0.db", "counter_1.db"}


def test_only_the_first_process_empties_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    first = Place(9)
    first.folder.mkdir(parents=True)
    (first.folder / "counter_0.db").touch()
    first.enter()
    assert not list(first.folder.glob("*.db"))
    (first.folder / "counter_0.db").touch()
    Place(9).enter()
    assert [file.name for file in first.folder.glob("*.db")] == ["counter_0.db"]


@pytest.mark.django_db
def test_log_ins_are_counted_by_what_came_of_them(client: "object") -> None:
    from django.test import Client as TestClient

    from quiktrade.metrics.counting import REGISTRY

    def count(result: str) -> float:
        return REGISTRY.get_sample_value("quiktrade_logins_total", {"result": result}) or 0.0

    before = count("wrong")
    UserFactory(username="alice")
    body = {"username": "alice", "password": "not hers"}
    assert TestClient().post("/api/v1/auth/token", body, "application/json").status_code == 401
    assert count("wrong") == before + 1
