"""Notices: each is sent at least once, in order, whichever process dies and whichever channel hangs."""

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import timedelta
from io import StringIO
from ipaddress import ip_network
from typing import Any

import django_q.worker
import pytest
from django.conf import settings as django_settings
from django.core.management import CommandError, call_command
from django.db import connection
from django.utils import timezone
from django_q.conf import Conf

from orders.tests.receiver import OK, Received, Receiver, after, answers, running_receiver
from quiktrade.alerts import gauges, incidents, notices, sending, system, watch
from quiktrade.alerts.channels import Channel
from quiktrade.database.statements import fetch
from quiktrade.local.venv import ROOT
from quiktrade.models import Incident, Notice
from quiktrade.processes import wait_for
from quiktrade.tests.processes import database_url_of_tests
from quiktrade.tests.test_alert_channels import WHSEC
from quiktrade.tests.test_incidents import LATE, look

pytestmark = pytest.mark.django_db(transaction=True)


CLAIM = {"incident": None, "lease": 0.0, "most": 10}


@pytest.fixture(autouse=True)
def our_own_receivers(settings: Any) -> None:
    settings.ALERTS_ALLOW = [ip_network("127.0.0.0/8")]


@pytest.fixture
def receiver(settings: Any) -> Iterator[Receiver]:
    """Of the only channel."""
    with running_receiver() as receiver:
        settings.ALERTS = [hook(receiver)]
        yield receiver


def hook(receiver: Receiver, name: str = "https:hook") -> Channel:
    return Channel("https", name, receiver.url, WHSEC)


def opened() -> Incident:
    look(LATE), look(LATE)
    return Incident.objects.get(kind=LATE.kind.name, resolved_at=None)


def ended() -> None:
    look(), look(), look()


def send_all() -> None:
    """Send what is due, in threads as the processes do, and wait for them."""
    notices.send_due()
    assert wait_for(lambda: not notices._busy, 30)


def types(receiver: Receiver) -> list[str]:
    return [received.verified(WHSEC)["type"] for received in receiver.received]


def make_due() -> None:
    Notice.objects.filter(sent_at=None, given_up_at=None).update(due_at=timezone.now())


def test_an_incident_is_told_once_and_its_end_once(receiver: Receiver) -> None:
    opened()
    send_all()
    send_all()
    assert types(receiver) == ["incident.opened"]
    ended()
    send_all()
    send_all()
    assert types(receiver) == ["incident.opened", "incident.resolved"]
    assert {notice.tries for notice in Notice.objects.all()} == {1}


def test_six_processes_that_send_at_once_send_once(receiver: Receiver) -> None:
    incident = opened()
    barrier = threading.Barrier(6)

    def send() -> None:
        barrier.wait()
        notices._send_all(django_settings.ALERTS[0])

    threads = [threading.Thread(target=send) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [received.id for received in receiver.received] == [f"alert_{incident.notices.get().pk}"]


def test_a_channel_that_hangs_delays_no_other(settings: Any) -> None:
    may_answer = threading.Event()

    async def hang(received: Received) -> Any:
        while not may_answer.is_set():
            await after(0.05, OK)(received)
        return await OK(received)

    with running_receiver(hang) as hanging, running_receiver() as other:
        settings.ALERTS = [hook(hanging, "https:hanging"), hook(other, "https:other")]
        opened()
        notices.send_due()
        hanging.wait_for(1)
        other.wait_for(1)
        ended()
        notices.send_due()
        other.wait_for(2)
        assert types(other) == ["incident.opened", "incident.resolved"]
        assert types(hanging) == ["incident.opened"]
        may_answer.set()
        assert wait_for(lambda: not notices._busy, 30)
        assert types(hanging) == ["incident.opened", "incident.resolved"]


def jobs_process(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A process of the job cluster that looks once and is then to be replaced."""
    monkeypatch.setattr(Conf, "RECYCLE", 1)
    connection.close()  # it must not be shared
    context = multiprocessing.get_context("fork")
    tasks, results, timer = context.Queue(), context.Queue(), context.Value("f", -1)
    tasks.put({"id": "1", "name": "look", "func": watch.JOB, "args": (), "kwargs": {}, "started": timezone.now()})
    process = context.Process(target=django_q.worker.worker, args=(tasks, results, timer, 60), daemon=True)
    process.start()
    return process


def test_a_channel_that_hangs_keeps_no_jobs_process_from_being_replaced(
    settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    may_answer = threading.Event()

    async def hang(received: Received) -> Any:
        while not may_answer.is_set():
            await after(0.05, OK)(received)
        return await OK(received)

    monkeypatch.setattr(watch, "SENT_SECONDS", 0.1)
    monkeypatch.setattr(sending, "STEP_SECONDS", 60.0)
    monkeypatch.setattr(sending, "DEADLINE_SECONDS", 60.0)
    with running_receiver(hang) as receiver:
        settings.ALERTS = [hook(receiver)]
        opened()
        process = jobs_process(monkeypatch)
        process.join(20)
        ended = not process.is_alive()
        may_answer.set()
        process.join(60)
    assert ended


def test_what_is_sent_quickly_is_sent_before_its_process_is_replaced(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "SENT_SECONDS", 20.0)
    opened()
    jobs_process(monkeypatch).join(30)
    assert types(receiver) == ["incident.opened"]
    assert Notice.objects.get().sent_at is not None


def test_the_notice_of_a_sender_that_was_killed_is_sent_by_another() -> None:
    with running_receiver(after(30, OK), OK) as receiver:
        environment = {
            "DATABASE_URL": database_url_of_tests(),
            "QUIKTRADE_ALERTS": f"{receiver.url}#{WHSEC}",
            "QUIKTRADE_ALERTS_ALLOW": "127.0.0.0/8",
        }
        command = [sys.executable, "manage.py", "send_test_alert"]
        with subprocess.Popen(command, cwd=ROOT, env={**os.environ, **environment}) as sender:
            receiver.wait_for(1)
            sender.send_signal(signal.SIGKILL)
        claimed = Notice.objects.get(what="opened")
        assert (claimed.tries, claimed.sent_at) == (1, None)
        channel = hook(receiver, claimed.channel)
        assert notices.send_one(channel) is None  # until its lease has ended
        make_due()
        sent = notices.send_one(channel)
        assert sent is not None
        assert sent[1] == ""
        assert receiver.ids == [f"alert_{claimed.pk}"] * 2


def fail_ten_times() -> list[float]:
    """The waits after each of them."""
    waits = []
    for _ in range(10):
        before = timezone.now()
        send_all()
        send_all()
        notice = Notice.objects.get()
        waits.append(round((notice.due_at - before).total_seconds(), -1))
        make_due()
    return waits


def test_what_is_refused_is_tried_again_later_and_given_up_once_somebody_looks_after_it(settings: Any) -> None:
    with running_receiver(answers(500)) as receiver:
        settings.ALERTS = [hook(receiver)]
        incident = opened()
        assert fail_ten_times()[3:] == [60, 120, 300, 600, 900, 1200, 1200]
        assert len(receiver.received) == 10
        incidents.acknowledge([incident.pk], actor="operator:olga", reason="I saw it in the console.")
        send_all()
        notices.give_up()
        notice = Notice.objects.get()
        assert (notice.error, notice.given_up_at is not None) == ("It answered 500.", True)
        assert len(receiver.received) == notice.tries == 10


def test_an_incident_that_is_still_open_is_told_when_its_channel_works_again(settings: Any) -> None:
    with running_receiver(answers(500)) as receiver:
        settings.ALERTS = [hook(receiver)]
        opened()
        fail_ten_times()
        notices.give_up()
        (found,) = [finding for judge in system.JUDGES for finding in judge.look()]
        assert (found.kind, found.subject) == (system.ALERTS_UNSENT, "https:hook")
        assert found.sentence == "1 alert to https:hook failed ten times: It answered 500."
        receiver.script[:] = [OK]
        send_all()
        assert Notice.objects.get().sent_at is not None
        assert [finding for judge in system.JUDGES for finding in judge.look()] == []


def test_the_end_is_given_up_after_ten_tries(settings: Any) -> None:
    with running_receiver(OK, answers(500)) as receiver:
        settings.ALERTS = [hook(receiver)]
        opened()
        send_all()
        ended()
        for _ in range(11):
            send_all()
            make_due()
        assert Notice.objects.get(what="resolved").given_up_at is not None
        assert len(receiver.received) == 11


def test_the_end_is_not_told_before_the_beginning(settings: Any) -> None:
    with running_receiver(answers(500), OK) as receiver:
        settings.ALERTS = [hook(receiver)]
        opened()
        send_all()
        ended()
        send_all()
        assert types(receiver) == ["incident.opened"]
        make_due()
        send_all()
        assert types(receiver) == ["incident.opened", "incident.opened", "incident.resolved"]


def test_what_came_late_of_a_sender_that_stood_still_changes_nothing(receiver: Receiver) -> None:
    opened()
    notice = Notice.objects.get()
    claimed = notices.Claimed._make(fetch(notices._CLAIM, {**CLAIM, "channel": notice.channel})[0])
    send_all()
    notices._record_failure(django_settings.ALERTS[0], claimed, "too late")
    notice.refresh_from_db()
    assert (notice.error, notice.sent_at is not None, notice.tries) == ("", True, 2)


def test_what_is_for_a_channel_of_yesterday_is_given_up(receiver: Receiver, settings: Any) -> None:
    opened()
    settings.ALERTS = []
    notices.give_up()
    assert Notice.objects.get().given_up_at is None
    Notice.objects.update(due_at=timezone.now() - timedelta(days=2))
    notices.give_up()
    assert Notice.objects.get().error == "The channel is not configured any more."


def test_a_notice_whose_senders_die_each_time_is_given_up_in_the_end(receiver: Receiver) -> None:
    incident = opened()
    for _ in range(10):
        assert fetch(notices._CLAIM, {**CLAIM, "channel": "https:hook", "lease": -1.0})
    incidents.acknowledge([incident.pk], actor="operator:olga", reason="I saw it in the console.")
    assert not fetch(notices._CLAIM, {**CLAIM, "channel": "https:hook"})
    notices.give_up()
    assert "Its sender ended" in Notice.objects.get().error
    assert receiver.received == []


def test_a_test_is_told_to_all_and_says_who_was_not_reached(receiver: Receiver, settings: Any) -> None:
    out = StringIO()
    call_command("send_test_alert", stdout=out)
    assert out.getvalue() == "https:hook, opened: sent\nhttps:hook, resolved: sent\n"
    assert types(receiver) == ["incident.opened", "incident.resolved"]
    with running_receiver(answers(403, "who are you")) as broken:
        settings.ALERTS = [hook(receiver), hook(broken, "https:broken")]
        with pytest.raises(CommandError, match="1 of 2 channels could not be told") as error:
            call_command("send_test_alert", stdout=out)
    assert error.value.returncode == 1
    assert "https:broken, opened: It answered 403.\n" in out.getvalue()
    assert not Notice.objects.filter(sent_at=None, given_up_at=None).exists()
    assert not Incident.objects.filter(resolved_at=None).exists()


def test_a_test_without_a_channel_says_what_to_set(settings: Any) -> None:
    settings.ALERTS = []
    with pytest.raises(CommandError, match="QUIKTRADE_ALERTS"):
        call_command("send_test_alert")


def test_an_acknowledgement_reaches_the_pager(settings: Any) -> None:
    with running_receiver() as receiver:
        settings.ALERTS = [Channel("pagerduty", "pagerduty:1", receiver.url, "k" * 32)]
        incident = opened()
        send_all()
        incidents.acknowledge([incident.pk], actor="operator:olga", reason="I call them.")
        send_all()
        assert [b'"acknowledge"' in received.body for received in receiver.received] == [False, True]


def unsent_seconds() -> float:
    (value,) = [
        sample.value for metric in gauges.incidents() for sample in metric.samples if "alert_unsent" in sample.name
    ]
    return float(value)


def test_how_long_a_channel_could_not_be_told_is_measured_from_when_there_was_something_to_tell(settings: Any) -> None:
    with running_receiver(OK, answers(500)) as receiver:
        settings.ALERTS = [hook(receiver)]
        opened()
        Incident.objects.update(first_seen_at=timezone.now() - timedelta(days=3))
        send_all()
        assert unsent_seconds() == 0
        ended()
        send_all()
        assert 0 < unsent_seconds() < 3600
        Notice.objects.update(created_at=timezone.now() - timedelta(hours=2))
        assert unsent_seconds() > 7000
        settings.ALERTS = []  # the channel was removed
        assert unsent_seconds() == 0
