import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
from django.db import DatabaseError, connection, transaction

from exchanges import services
from exchanges.models import Venue, VenueEvent
from quiktrade.local.venv import ROOT


@pytest.fixture
def venue(db: None) -> Venue:
    return Venue.objects.create(code="XSIM", name="Simulated exchange", adapter="simulator")


def halt(actor: str = "operator:olga", reason: str = "wrong prices") -> Venue:
    return services.halt_venue("XSIM", actor=actor, reason=reason)


def test_a_halted_venue_says_by_whom_since_when_and_why(venue: Venue) -> None:
    halted = halt(reason="  wrong prices ")
    assert halted.halted
    assert (halted.halted_by, halted.halt_reason) == ("operator:olga", "wrong prices")
    event = VenueEvent.objects.get(venue=venue)
    assert (event.event, event.actor, event.reason) == ("halted", "operator:olga", "wrong prices")


def test_a_resumed_venue_is_open_and_its_history_says_why(venue: Venue) -> None:
    halt()
    resumed = services.resume_venue("XSIM", actor="operator:adam", reason="prices are right again")
    assert (resumed.halted_at, resumed.halted_by, resumed.halt_reason) == (None, "", "")
    last = VenueEvent.objects.filter(venue=venue).first()
    assert last is not None
    assert (last.event, last.actor, last.reason) == ("resumed", "operator:adam", "prices are right again")


def test_halting_a_halted_venue_names_who_halted_it_and_changes_nothing(venue: Venue) -> None:
    halt()
    with pytest.raises(services.AlreadyHalted, match=r"XSIM has been halted since .* by operator:olga: wrong prices"):
        halt(actor="operator:adam", reason="another")
    venue.refresh_from_db()
    assert venue.halted_by == "operator:olga"
    assert VenueEvent.objects.count() == 1


def test_resuming_an_open_venue_is_refused(venue: Venue) -> None:
    with pytest.raises(services.NotHalted, match="XSIM is not halted"):
        services.resume_venue("XSIM", actor="operator:olga", reason="to be sure")
    assert not VenueEvent.objects.exists()


def test_an_unknown_venue_is_refused_with_the_known_ones(venue: Venue) -> None:
    with pytest.raises(services.UnknownVenue, match=r"no venue 'XXXX'. Known: XSIM"):
        services.halt_venue("XXXX", actor="operator:olga", reason="wrong prices")


@pytest.mark.parametrize("reason", ["", "  \n"])
def test_a_reason_must_say_something(venue: Venue, reason: str) -> None:
    with pytest.raises(ValueError, match="reason"):
        halt(reason=reason)
    venue.refresh_from_db()
    assert not venue.halted


def test_the_history_cannot_be_changed(venue: Venue) -> None:
    halt()
    with pytest.raises(DatabaseError, match="append-only"), transaction.atomic():
        VenueEvent.objects.update(reason="nothing happened")
    with pytest.raises(DatabaseError, match="append-only"), transaction.atomic():
        VenueEvent.objects.all().delete()


@pytest.mark.django_db(transaction=True)
def test_of_many_who_halt_at_once_one_does(transactional_db: None) -> None:
    Venue.objects.create(code="XSIM", name="Simulated exchange", adapter="simulator")

    def attempt(number: int) -> bool:
        try:
            halt(actor=f"operator:{number}")
        except services.AlreadyHalted:
            return False
        finally:
            connection.close()
        return True

    with ThreadPoolExecutor(8) as threads:
        assert sum(threads.map(attempt, range(8))) == 1
    assert VenueEvent.objects.count() == 1


def test_without_the_database_a_command_says_so_and_what_to_do() -> None:
    done = subprocess.run(
        [sys.executable, "manage.py", "halt_venue", "XSIM", "--reason", "x"],
        cwd=ROOT,
        env=os.environ | {"DATABASE_URL": "postgresql://u@127.0.0.1:9/none"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 3
    assert "The database cannot be relied on" in done.stderr
    assert "Traceback" not in done.stderr
