"""Who looks for trouble: web processes and job clusters, and what a web process alone can see."""

import socket
import threading
from collections.abc import Iterator
from datetime import timedelta
from ipaddress import ip_network
from typing import Any

import orjson
import psycopg
import pytest
from django.db import connection
from django.utils import timezone
from psycopg import sql
from rest_framework.test import APIClient

from orders.tests.factories import OrderFactory, UserFactory, VenueFactory, WorkerNodeFactory
from orders.tests.receiver import OK, Receiver, answers, running_receiver
from quiktrade.alerts import incidents, messages, notices, system, watch
from quiktrade.alerts.channels import Channel
from quiktrade.alerts.judging import Finding, judges, kinds
from quiktrade.alerts.messages import OPENED, RESOLVED
from quiktrade.alerts.watch import Local, Outage, Watcher, _Story
from quiktrade.jobs import doorbell
from quiktrade.metrics.names import DATABASE_TROUBLE
from quiktrade.models import Incident, Notice, Session, Watch
from quiktrade.processes import wait_for
from quiktrade.tests.processes import Processes, wait_until
from quiktrade.tests.test_alert_channels import WHSEC


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with running_receiver() as receiver:
        yield receiver


def alerted(receiver: Receiver) -> dict[str, str]:
    """The environment of processes that tell this receiver."""
    return {"QUIKTRADE_ALERTS": f"{receiver.url}#{WHSEC}", "QUIKTRADE_ALERTS_ALLOW": "127.0.0.0/8"}


def heard(receiver: Receiver) -> list[tuple[str, str]]:
    contents = [received.verified(WHSEC) for received in receiver.received]
    return [(content["type"], content["data"]["kind"]) for content in contents]


# ---- Processes ----


@pytest.mark.exhaustive
def test_web_alone_tells_that_no_worker_runs_and_when_one_does(processes: Processes, receiver: Receiver) -> None:
    VenueFactory()
    web = processes.web(QUIKTRADE_WEB_WORKERS="2", **alerted(receiver))
    wait_until(lambda: heard(receiver), web)
    assert heard(receiver) == [("incident.opened", "no_worker")]
    WorkerNodeFactory(heartbeat_at=timezone.now() + timedelta(hours=1))
    wait_until(lambda: len(heard(receiver)) > 1, web)
    assert heard(receiver)[1:] == [("incident.resolved", "no_worker")]


@pytest.mark.exhaustive
def test_a_worker_alone_tells_of_failed_orders(processes: Processes, receiver: Receiver) -> None:
    OrderFactory(status="failed")
    worker = processes.worker(**alerted(receiver))
    wait_until(lambda: heard(receiver), worker)
    assert heard(receiver) == [("incident.opened", "orders_failed")]


@pytest.mark.exhaustive
def test_each_web_process_tells_that_the_database_is_away_and_that_it_is_back(
    processes: Processes, receiver: Receiver
) -> None:
    WorkerNodeFactory(heartbeat_at=timezone.now() + timedelta(hours=1))
    web = processes.web(QUIKTRADE_WEB_WORKERS="1", **alerted(receiver))
    wait_until(Watch.objects.exists, web)
    database = connection.settings_dict["NAME"]
    connection.close()
    elsewhere = doorbell.connection_parameters() | {"dbname": "postgres"}
    allow = sql.SQL("ALTER DATABASE {} WITH ALLOW_CONNECTIONS {}")
    with psycopg.connect(**elsewhere, autocommit=True) as admin:
        admin.execute(allow.format(sql.Identifier(database), sql.SQL("false")))
        try:
            admin.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [database])
            wait_until(lambda: heard(receiver), web)
        finally:
            admin.execute(allow.format(sql.Identifier(database), sql.SQL("true")))
    wait_until(lambda: len(heard(receiver)) > 1, web)
    assert heard(receiver) == [("incident.opened", "database_away"), ("incident.resolved", "database_away")]
    wait_until(Incident.objects.filter(kind="database_away", resolved_at__isnull=False).exists, web)


# ---- An outage of the database ----


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def told_directly(settings: Any, receiver: Receiver) -> Receiver:
    settings.ALERTS_ALLOW = [ip_network("127.0.0.0/8")]
    settings.ALERTS = [Channel("https", "https:hook", receiver.url, WHSEC)]
    return receiver


def test_an_outage_is_told_after_half_a_minute_once_and_its_end_once(told_directly: Receiver) -> None:
    clock = Clock()
    outage = Outage(clock)
    for seconds in (0, 10, 19, 5, 10, 600):
        clock.now += seconds
        outage.goes_on("connection refused")
        assert len(told_directly.received) <= (seconds in (5, 10, 600))
    told_directly.wait_for(1)
    assert outage.is_over() is not None
    assert outage.is_over() is None
    told_directly.wait_for(2)
    assert heard(told_directly) == [("incident.opened", "database_away"), ("incident.resolved", "database_away")]
    keys = {received.verified(WHSEC)["data"]["incident"] for received in told_directly.received}
    assert len(keys) == 1


def test_the_next_outage_is_another_mail_and_the_same_incident_of_a_pager() -> None:
    first, second = ([_Story(timezone.now(), id_)._message(what) for what in (OPENED, RESOLVED)] for id_ in "ab")
    assert [message.incident for message in (*first, *second)] == ["a", "a", "b", "b"]
    pager = Channel("pagerduty", "pagerduty:1", "https://x/", "k" * 32)
    assert len({orjson.loads(messages.body(pager, message))["dedup_key"] for message in (*first, *second)}) == 1


def test_a_short_outage_is_told_to_nobody(told_directly: Receiver) -> None:
    clock = Clock()
    outage = Outage(clock)
    for _ in range(3):
        outage.goes_on("connection refused")
        clock.now += 29
        assert outage.is_over() is None
    assert told_directly.received == []


def test_a_channel_that_fails_is_told_of_an_outage_again(
    monkeypatch: pytest.MonkeyPatch, told_directly: Receiver
) -> None:
    monkeypatch.setattr(notices, "RETRY_SECONDS", (0.05,) * 3)
    told_directly.script[:] = [answers(500), answers(500), OK]
    clock = Clock()
    outage = Outage(clock)
    outage.goes_on("x")
    clock.now += 31
    outage.goes_on("x")
    told_directly.wait_for(3)
    outage.is_over()
    told_directly.wait_for(4)
    assert [kind for kind, _ in heard(told_directly)] == ["incident.opened"] * 3 + ["incident.resolved"]
    assert len(set(told_directly.ids)) == 2


@pytest.mark.django_db(transaction=True)
def test_only_a_database_that_does_not_answer_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    watcher = Watcher()
    monkeypatch.setattr(watcher._outage, "goes_on", told.append)
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE quiktrade_watch RENAME TO not_yet")
    try:
        watcher.look()  # a process of the next version, before `migrate`
    finally:
        with connection.cursor() as cursor:
            cursor.execute("ALTER TABLE not_yet RENAME TO quiktrade_watch")
    with psycopg.connect(**doorbell.connection_parameters()) as other, connection.cursor() as cursor:
        other.execute("LOCK TABLE quiktrade_watch")
        cursor.execute("SET lock_timeout = '10ms'")
        monkeypatch.setattr(connection, "close", lambda: None)  # which `look` does, and so would end the setting
        watcher.look()
        monkeypatch.undo()
        cursor.execute("RESET lock_timeout")
    assert told == []


@pytest.mark.django_db(transaction=True)
def test_a_database_that_ends_the_connection_or_takes_none_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    watcher = Watcher()
    monkeypatch.setattr(watcher._outage, "goes_on", told.append)
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        (pid,) = cursor.fetchone()
    with psycopg.connect(**doorbell.connection_parameters(), autocommit=True) as other:
        other.execute("SELECT pg_terminate_backend(%s, 10000)", [pid])
    watcher.look()
    assert len(told) == 1
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    connection.close()
    monkeypatch.setitem(connection.settings_dict, "HOST", "127.0.0.1")
    monkeypatch.setitem(connection.settings_dict, "PORT", port)
    watcher.look()
    assert len(told) == 2


@pytest.mark.django_db
def test_an_outage_that_several_processes_saw_is_in_the_list_once() -> None:
    since = timezone.now() - timedelta(minutes=2)
    for node in ("a", "b", "c"):
        incidents.record_outage(since, node=node)
    (incident,) = Incident.objects.all()
    assert (incident.kind, incident.opened_at) == ("database_away", since)
    assert [event.event for event in incident.events.all()] == ["opened", "resolved"]
    assert not Notice.objects.exists()


# ---- What only a process can see ----


def shed(*minutes: tuple[int, int]) -> list[bool]:
    """For each minute with this many requests served and refused in five seconds: whether overload was found in it."""
    clock, served, refused, found = Clock(), 0, 0, []
    local = Local(lambda: (served, refused), clock)
    for in_five_seconds in minutes:
        reported = []
        for _ in range(12):
            clock.now += 5
            served, refused = served + in_five_seconds[0], refused + in_five_seconds[1]
            reported += [finding.kind for finding in local.trouble()]
        found.append(system.OVERLOADED in reported)
    return found


def test_refusals_are_reported_once_they_have_lasted_for_a_minute() -> None:
    assert shed((1000, 0), (980, 20), (980, 20), (1000, 0), (1000, 0)) == [False, False, True, True, False]
    assert shed((1000, 9), (1000, 9), (1000, 9)) == [False, False, False]
    assert shed((0, 0), (0, 0)) == [False, False]


def test_one_burst_of_refusals_is_no_overload() -> None:
    clock, counts = Clock(), [1000, 0]
    local = Local(lambda: (counts[0], counts[1]), clock)
    for second in range(0, 300, 5):
        counts[1] += 500 if second == 60 else 0
        clock.now += 5
        assert local.trouble() == []


def test_a_database_that_is_away_again_and_again_is_reported() -> None:
    clock = Clock()
    local = Local(None, clock)
    found = []
    for _ in range(7):
        found.append([finding.kind for finding in local.trouble()])
        DATABASE_TROUBLE("web").inc()
        clock.now += 5
    assert found == [[]] * 6 + [[system.DATABASE_TROUBLE]]
    clock.now += 301
    assert local.trouble() == []


@pytest.mark.django_db
def test_what_a_process_reports_is_found_for_as_long_as_it_is_repeated() -> None:
    overloaded = Finding(system.OVERLOADED, "node-1", "It refuses 5.0% of its requests.", "", 0.05)
    system.report([overloaded])
    system.report([overloaded._replace(value=0.07)])
    (found,) = system._sighted()
    assert (found.kind, found.subject, found.value) == (system.OVERLOADED, "node-1", 0.07)
    assert "web processes" in found.advice
    with connection.cursor() as cursor:
        cursor.execute("UPDATE quiktrade_sighting SET seen_at = seen_at - interval '31 seconds'")
    assert system._sighted() == []


# ---- The system's own judges ----


@pytest.mark.django_db
def test_a_refresh_token_that_is_used_again_opens_an_incident_at_once() -> None:
    UserFactory(username="alice", password="zz-first-pass")
    client = APIClient()
    first = client.post("/api/v1/auth/token", {"username": "alice", "password": "zz-first-pass"}).json()["refresh"]
    for _ in range(2):
        first_used = client.post("/api/v1/auth/token/refresh", {"refresh": first})
        assert first_used.status_code == 200
    Session.objects.update(refreshed_at=timezone.now() - timedelta(minutes=1))
    assert client.post("/api/v1/auth/token/refresh", {"refresh": first}).status_code == 401
    watch.look()
    incident = Incident.objects.get(kind="refresh_reused")
    assert incident.opened_at is not None
    assert (incident.subject, incident.severity) == ("alice", "page")


@pytest.mark.django_db
def test_a_channel_that_was_given_up_is_told_to_the_others_but_does_not_keep_itself_alive(settings: Any) -> None:
    told = ("no_worker", "alerts_unsent", "test")
    settings.ALERTS = [Channel("https", f"https:{kind}", "https://x/") for kind in told]
    row: dict[str, Any] = {"severity": "page", "sentence": "x", "advice": "", "value": 1, "worst": 1}
    for kind in (*told, "of_a_channel_that_was_removed"):
        incident = Incident.objects.create(kind=kind, opened_at=timezone.now(), **row)
        over: dict[str, Any] = {"given_up_at": timezone.now(), "error": "It answered 404."}
        Notice.objects.create(incident=incident, what="opened", channel=f"https:{kind}", **over)
    (found,) = system._unsent()
    assert found.subject == "https:no_worker"
    assert found.sentence == "1 alert to https:no_worker failed ten times: It answered 404."


@pytest.mark.django_db
def test_every_judge_can_look_and_says_nothing_of_a_system_that_is_well() -> None:
    WorkerNodeFactory()
    VenueFactory()
    asked, found = incidents.look()
    assert found == []
    assert set(asked) == {"not_judged", *(kind.name for judge in judges() for kind in judge.kinds)}
    assert set(kinds()) == {*asked, "database_away", "test"}


@pytest.mark.django_db(transaction=True)
def test_a_judge_that_fails_takes_no_other_with_it_and_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    from quiktrade.alerts import judging

    WorkerNodeFactory()
    troubles = watch._troubles()

    def fails() -> list[Finding]:
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_sleep(2)")  # longer than a look may take
        return []

    broken = judging.Judge((system.OVERLOADED, system.DATABASE_TROUBLE), fails)
    monkeypatch.setattr(incidents, "judges", lambda: [broken, *judges()[1:]])
    asked, (found,) = incidents.look()
    assert system.OVERLOADED.name not in asked
    assert {"refresh_reused", "no_worker", "not_judged"} <= set(asked)
    assert (found.kind, found.subject) == (judging.NOT_JUDGED, "overloaded, database_trouble")
    assert watch._troubles() == troubles + 1


@pytest.mark.django_db
def test_a_judge_with_a_fault_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    from quiktrade.alerts import judging

    def fails() -> list[Finding]:
        raise ZeroDivisionError

    broken = judging.Judge((system.OVERLOADED,), fails)
    monkeypatch.setattr(incidents, "judges", lambda: [broken])
    asked, (found,) = incidents.look()
    assert (asked, found.kind, found.subject) == (["not_judged"], judging.NOT_JUDGED, "overloaded")


def test_the_threads_of_this_file_have_ended() -> None:
    """The outages above leave none behind."""
    assert wait_for(lambda: not [t for t in threading.enumerate() if t.name.startswith("outage-")], 10)
