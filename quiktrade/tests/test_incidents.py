"""Incidents: open after two bad looks, over after three good ones, and each channel is told once, whoever judges."""

import threading
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.db.models import F
from django.utils import timezone

from quiktrade.alerts import incidents
from quiktrade.alerts.channels import Channel
from quiktrade.alerts.judging import PAGE, Finding, Kind
from quiktrade.alerts.system import ARCHIVE_FAILS
from quiktrade.models import Incident, IncidentEvent, Notice, Watch

DUE, CIRCUIT = Kind("orders_overdue", "Orders overdue", PAGE), Kind("venue_in_trouble", "Venue in trouble", PAGE)
REUSED = Kind("refresh_reused", "Refresh token used twice", PAGE, at_once=True)
MAIL, HOOK = Channel("mailto", "mailto:ops@example.com", "ops@example.com"), Channel("https", "https:x#1", "https://x/")
ASKED = [DUE.name, CIRCUIT.name]
LATE = Finding(DUE, "XSIM", "40 orders are overdue.", "Look.", 40)
SILENT = Finding(CIRCUIT, "XSIM", "XSIM does not answer.", "Ask it.")


@pytest.fixture(autouse=True)
def two_channels(settings: Any) -> None:
    settings.ALERTS = [MAIL, HOOK]


def look(*found: Finding, asked: Sequence[str] = ASKED) -> list[str]:
    """A look by somebody who has just taken the turn: what it changed."""
    Watch.objects.update(next_at="2026-01-01T00:00:00Z")
    turn = incidents.take_turn()
    assert turn is not None
    return [f"{change.event} {change.kind}" for change in incidents.judge(turn, asked, found)]


def told() -> Counter[str]:
    return Counter(f"{notice.what} {notice.channel}" for notice in Notice.objects.all())


@pytest.mark.django_db
def test_an_incident_opens_at_the_second_bad_look_and_is_over_at_the_third_good_one() -> None:
    changes = [look(LATE), look(LATE), look(LATE), look(), look(), look(), look()]
    assert changes == [[], ["opened orders_overdue"], [], [], [], ["resolved orders_overdue"], []]
    assert told() == {f"{what} {c.name}": 1 for what in ("opened", "resolved") for c in (MAIL, HOOK)}
    events = IncidentEvent.objects.values_list("event", "actor", "reason")
    assert list(events) == [(event, "system:alerts", LATE.sentence) for event in ("opened", "resolved")]


@pytest.mark.django_db
def test_trouble_that_comes_and_goes_opens_no_incident_and_ends_none() -> None:
    assert [look(LATE), look(), look(LATE), look(), look(LATE)] == [[]] * 5
    assert look(LATE) == ["opened orders_overdue"]
    assert [look(), look(), look(LATE), look(), look(), look(LATE)] == [[]] * 6
    assert told() == {f"opened {MAIL.name}": 1, f"opened {HOOK.name}": 1}


@pytest.mark.django_db
def test_what_has_happened_is_told_at_the_first_look() -> None:
    reused = Finding(REUSED, "alice", "Used again.", "")
    assert look(reused, asked=[REUSED.name]) == ["opened refresh_reused"]


@pytest.mark.django_db
def test_what_has_to_last_is_told_when_every_look_has_seen_it_for_so_long() -> None:
    failing = Finding(ARCHIVE_FAILS, "", "The write-ahead log is not archived.", "")

    def look_at_it(*found: Finding) -> list[str]:
        return look(*found, asked=[ARCHIVE_FAILS.name])

    def pass_minutes(minutes: int) -> None:
        Incident.objects.update(first_seen_at=F("first_seen_at") - timedelta(minutes=minutes))

    assert [look_at_it(failing) for _ in range(4)] == [[]] * 4
    pass_minutes(9)
    assert look_at_it(failing) == []
    assert look_at_it() == []  # one segment was archived
    assert look_at_it(failing) == []
    pass_minutes(9)
    assert look_at_it(failing) == []
    pass_minutes(2)
    assert look_at_it(failing) == ["opened archive_fails"]


@pytest.mark.django_db
def test_an_incident_keeps_its_worst_value_and_what_was_said_last() -> None:
    for count in (40, 90, 10):
        look(LATE._replace(value=count, sentence=f"{count} orders are overdue."))
    incident = Incident.objects.get()
    assert (incident.value, incident.worst, incident.sentence) == (10, 90, "10 orders are overdue.")


@pytest.mark.django_db
def test_what_could_not_be_asked_about_is_neither_over_nor_forgotten() -> None:
    look(LATE, SILENT), look(LATE)
    for _ in range(4):
        look(asked=[])
    assert dict(Incident.objects.values_list("kind", "resolved_at")) == {DUE.name: None}
    look(SILENT, asked=[CIRCUIT.name])
    for _ in range(4):
        look(asked=[DUE.name])
    assert set(Incident.objects.filter(resolved_at=None).values_list("kind", flat=True)) == {CIRCUIT.name}


@pytest.mark.django_db
def test_a_kind_that_nobody_knows_any_more_is_over() -> None:
    gone = Finding(Kind("of_last_year", "", PAGE), "", "It was so.", "")
    look(gone, asked=[gone.kind.name]), look(gone, asked=[gone.kind.name])
    look(gone._replace(subject="seen once"), asked=[])
    assert [look() for _ in range(4)] == [[]] * 4  # by a process of the version before, which does not know it yet
    assert Incident.objects.filter(resolved_at=None).count() == 2
    Incident.objects.update(seen_at=timezone.now() - timedelta(hours=2))
    assert [look(), look(), look()][-1] == ["resolved of_last_year"]
    assert not Incident.objects.filter(resolved_at=None).exists()


@pytest.mark.django_db
def test_a_new_channel_is_told_of_what_is_open_but_not_of_what_somebody_looks_after(settings: Any) -> None:
    look(LATE, SILENT), look(LATE, SILENT)
    known = Incident.objects.get(kind=CIRCUIT.name)
    incidents.acknowledge([known.pk], actor="operator:olga", reason="I call them.")
    settings.ALERTS = [MAIL, HOOK, Channel("slack", "slack:new", "https://x/")]
    look(LATE, SILENT)
    (notice,) = Notice.objects.filter(channel="slack:new")
    assert notice.incident.kind == DUE.name


@pytest.mark.django_db
def test_the_end_is_told_to_a_channel_that_whoever_sees_it_does_not_have(settings: Any) -> None:
    settings.ALERTS = [MAIL, HOOK]
    look(LATE), look(LATE)
    settings.ALERTS = [MAIL]  # as a process that was started before the other channel was added
    look(), look(), look()
    assert told() == {f"{what} {c.name}": 1 for what in ("opened", "resolved") for c in (MAIL, HOOK)}


@pytest.mark.django_db
def test_an_acknowledgement_is_kept_and_refused_the_second_time() -> None:
    look(LATE), look(LATE)
    incident = Incident.objects.get()
    (done,) = incidents.acknowledge([incident.pk], actor="operator:olga", reason=" I look at the worker. ")
    (again,) = incidents.acknowledge([incident.pk], actor="operator:otto", reason="Me, too.")
    assert (done.done, again.done) == (True, False)
    assert again.explanation == "It was acknowledged by operator:olga: I look at the worker."
    event = incident.events.get(event="acknowledged")
    assert (event.actor, event.reason) == ("operator:olga", "I look at the worker.")
    for _ in range(3):
        look()
    (over,) = incidents.acknowledge([incident.pk], actor="operator:otto", reason="Late.")
    assert over.explanation == "It is over."


@pytest.mark.django_db
def test_only_a_pager_is_told_of_an_acknowledgement(settings: Any) -> None:
    pager = Channel("pagerduty", "pagerduty:1", "https://x/", "k" * 32)
    settings.ALERTS = [MAIL, pager]
    look(LATE), look(LATE)
    incidents.acknowledge([Incident.objects.get().pk], actor="operator:olga", reason="Mine.")
    assert told() == {f"opened {MAIL.name}": 1, "opened pagerduty:1": 1, "acknowledged pagerduty:1": 1}


@pytest.mark.django_db(transaction=True)
def test_of_six_who_ask_at_once_one_has_the_turn_and_a_late_judgement_counts_for_nothing() -> None:
    barrier = threading.Barrier(6)

    def take(_: int) -> int | None:
        barrier.wait()
        try:
            return incidents.take_turn()
        finally:
            connection.close()

    with ThreadPoolExecutor(6) as pool:
        first = [turn for turn in pool.map(take, range(6)) if turn is not None]
    assert len(first) == 1
    look(LATE)
    assert incidents.judge(first[0], ASKED, [LATE]) == []  # it stood still since before that look
    assert Incident.objects.get().bad_looks == 1


@pytest.mark.django_db(transaction=True)
def test_six_who_judge_the_same_turn_tell_everybody_once() -> None:
    look(LATE, SILENT)
    Watch.objects.update(next_at="2026-01-01T00:00:00Z")
    turn = incidents.take_turn()
    assert turn is not None

    def judge_six_times(*found: Finding) -> None:
        barrier = threading.Barrier(6)

        def judge(_: int) -> None:
            barrier.wait()
            try:
                incidents.judge(turn, ASKED, found)
            finally:
                connection.close()

        with ThreadPoolExecutor(6) as pool:
            list(pool.map(judge, range(6)))

    judge_six_times(LATE, SILENT)
    assert told() == {f"opened {MAIL.name}": 2, f"opened {HOOK.name}": 2}
    judge_six_times(LATE)
    assert told() == {
        **{f"opened {channel.name}": 2 for channel in (MAIL, HOOK)},
        **{f"resolved {channel.name}": 1 for channel in (MAIL, HOOK)},
    }
    assert Counter(IncidentEvent.objects.values_list("event", flat=True)) == {"opened": 2, "resolved": 1}


@pytest.mark.django_db
def test_a_turn_that_a_clock_set_ahead_has_written_is_taken_all_the_same() -> None:
    assert incidents.take_turn() == 1
    assert incidents.take_turn() is None
    Watch.objects.update(next_at="2099-01-01T00:00:00Z")
    assert incidents.take_turn() == 2
