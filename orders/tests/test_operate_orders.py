"""The operators' commands: what they choose, what they refuse, what they say, and their exit codes."""

import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from django.core.management import CommandError, call_command, get_commands, load_command_class

from exchanges.adapters import simulator
from exchanges.adapters.http_calls import HttpReply
from exchanges.models import Venue, VenueEvent
from exchanges.tests.running import RunningExchange, running_exchange
from exchanges.venue import NotSent
from orders import selectors
from orders.management.commands.requeue_orders import Command as RequeueOrders
from orders.models import Order
from orders.tests.factories import OrderFactory, UserFactory, VenueFactory
from quiktrade.local.venv import ROOT
from quiktrade.tests.processes import database_url_of_tests

pytestmark = pytest.mark.django_db

DONE, REFUSED, USAGE = 0, 1, 2
ODD_TEXT = "f\udcfcr\0 \x1b[2J" + "x" * 600
"""A byte that is no UTF-8, as Python reads it from the command line; what PostgreSQL does not take; and too long."""
ODD_TEXT_KEPT = "f�r� \x1b[2J" + "x" * 490 + "…"


def run(*arguments: object, typed: str | None = None) -> tuple[int, str, str]:
    """Run a command as from a shell: its exit code, standard output and error. `typed` makes it interactive."""
    name, *rest = map(str, arguments)
    output, before = io.StringIO(), sys.stdin
    sys.stdin = Terminal(typed) if typed is not None else io.StringIO()
    try:
        call_command(name, *rest, stdout=output)
    except CommandError as error:
        return error.returncode, output.getvalue(), str(error)
    finally:
        sys.stdin = before
    return DONE, output.getvalue(), ""


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def run_json(*arguments: object) -> tuple[int, Any]:
    """The command's exit code and its one document: standard output holds nothing else."""
    code, output, _ = run(*arguments, "--json")
    return code, json.loads(output)


def status_of(order: Order) -> str:
    return Order.objects.get(pk=order.pk).status


def requeued() -> set[UUID]:
    return set(Order.objects.filter(status="pending").values_list("pk", flat=True))


# ---- requeue_orders ----


def test_one_order_is_requeued_without_a_question() -> None:
    order = OrderFactory(status="failed")
    code, output, _ = run("requeue_orders", order.pk, "--reason", "venue is back")
    assert (code, output) == (DONE, "Requeued 1 order.\n")
    event = selectors.history(order.pk).last()
    assert event is not None
    assert event.reason == "venue is back"
    assert event.actor.startswith("operator:")
    assert event.actor.endswith(" (command)")


def test_the_person_behind_sudo_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SUDO_USER", "olga")
    order = OrderFactory(status="failed")
    run("requeue_orders", order.pk, "--reason", "venue is back")
    assert selectors.history(order.pk).filter(actor="operator:olga (command)").exists()


def test_refused_and_unknown_orders_are_named_and_make_the_exit_code_1() -> None:
    failed, placed, missing = OrderFactory(status="failed"), OrderFactory(status="placed"), uuid4()
    code, output, error = run("requeue_orders", failed.pk, placed.pk, missing, "--yes", "--reason", "why")
    assert code == REFUSED
    assert output.splitlines() == [
        f"{placed.pk}: It is at the venue.",
        f"{missing}: There is no such order.",
        "Requeued 1 order.",
    ]
    assert error == "2 orders not requeued."
    assert status_of(failed) == "pending"


def test_the_document_tells_the_same() -> None:
    failed, placed = OrderFactory(status="failed"), OrderFactory(status="placed")
    code, document = run_json("requeue_orders", failed.pk, placed.pk, "--yes", "--reason", "why")
    assert (code, document["requeued"], document["refused"]) == (REFUSED, 1, 1)
    assert document["orders"][1] == {"id": str(placed.pk), "done": False, "explanation": "It is at the venue."}


def test_orders_are_chosen_by_venue_age_and_error() -> None:
    here = OrderFactory(status="failed", error="connect_refused: Nobody listens")
    there = OrderFactory(status="failed", venue=VenueFactory(code="XPAR"), error="connect_timeout: no answer")
    OrderFactory(status="placed")

    def chosen(*selection: str) -> set[str]:
        code, document = run_json("requeue_orders", *selection, "--dry-run")
        assert code == DONE
        return {order["id"] for order in document["orders"]}

    assert chosen("--venue", "XPAR") == {str(there.pk)}
    assert chosen("--error", "nobody LISTENS") == {str(here.pk)}
    assert chosen("--older-than", "0s") == {str(here.pk), str(there.pk)}
    assert chosen("--older-than", "10m") == set()
    assert chosen("--venue", "XSIM", "--error", "timeout") == set()
    assert not requeued()


def test_a_dry_run_shows_and_changes_nothing() -> None:
    order = OrderFactory(status="failed", error="connect_refused: nobody listens")
    code, output, _ = run("requeue_orders", "--venue", "XSIM", "--dry-run")
    assert code == DONE
    assert str(order.pk) in output
    assert "connect_refused: nobody listens" in output
    assert output.endswith("Would requeue 1 order. Nothing was changed.\n")
    assert status_of(order) == "failed"


@pytest.mark.parametrize(("typed", "code", "count"), [("y\n", DONE, 2), ("n\n", REFUSED, 0), ("\n", REFUSED, 0)])
def test_more_than_one_is_asked_about(typed: str, code: int, count: int, capsys: pytest.CaptureFixture[str]) -> None:
    orders = [OrderFactory(status="failed") for _ in range(2)]
    assert run("requeue_orders", "--venue", "XSIM", "--reason", "why", typed=typed)[0] == code
    assert "Requeue 2 orders? [y/N]" in capsys.readouterr().out
    assert len(requeued() & {order.pk for order in orders}) == count


def test_without_a_terminal_more_than_one_needs_yes() -> None:
    for _ in range(2):
        OrderFactory(status="failed")
    code, _, error = run("requeue_orders", "--venue", "XSIM", "--reason", "why")
    assert code == USAGE
    assert error == "This would requeue 2 orders. Add --yes to do so, or --dry-run to see them."
    assert run("requeue_orders", "--venue", "XSIM", "--reason", "why", "--yes")[0] == DONE
    assert len(requeued()) == 2


def test_nothing_to_requeue_is_no_failure() -> None:
    VenueFactory()
    code, output, _ = run("requeue_orders", "--venue", "XSIM", "--reason", "why", "--yes")
    assert (code, output) == (DONE, "No failed order meets that.\n")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--reason", "why"], "Name orders by id, or select failed ones"),
        (["--venue", "XSIM"], "--reason is needed"),
        (["--venue", "XSIM", "--reason", "  "], "say why"),
        (["--venue", "NOPE", "--reason", "why"], "There is no venue 'NOPE'. Known: XSIM."),
        (["--older-than", "5", "--reason", "why"], "write 90s, 10m, 2h or 3d"),
        (["--older-than", "-5m", "--reason", "why"], "argument"),
        (["mom-1", "--reason", "why"], "'mom-1' is not an order id; find it by a client's own with: show_order mom-1"),
        ([str(UUID(int=1)), "--venue", "XSIM", "--reason", "why"], "not both"),
    ],
)
def test_wrong_usage_says_what_to_do(arguments: list[str], said: str) -> None:
    VenueFactory()
    code, output, error = run("requeue_orders", *arguments)
    assert said in error
    assert output == ""
    assert code in (REFUSED, USAGE)  # argparse's own errors exit with 2 outside of call_command
    assert not requeued()


def test_no_letter_of_a_reason_keeps_orders_from_being_requeued(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SUDO_USER", "Andr\udce9" + "x" * 200)
    order = OrderFactory(status="failed")
    assert run("requeue_orders", order.pk, "--reason", ODD_TEXT)[0] == DONE
    event = selectors.history(order.pk).last()
    assert event is not None
    assert (event.reason, event.actor) == (ODD_TEXT_KEPT, "operator:Andr�" + "x" * 145 + "…")
    assert run("requeue_orders", "--error", ODD_TEXT, "--dry-run")[:2] == (
        DONE,
        "Would requeue 0 orders. Nothing was changed.\n",
    )


# ---- show_order ----


def test_what_a_venue_or_a_person_wrote_cannot_command_the_terminal() -> None:
    order = OrderFactory(status="failed", error="busy: \x1b[2J\x9b1m[red]come back\nERROR")
    run("requeue_orders", order.pk, "--reason", "\x1b]0;title\x07")
    code, output, _ = run("show_order", order.pk)
    assert code == DONE
    assert not any(character in output for character in "\x1b\x07\x9b")
    assert "busy: \\x1b[2J\\x9b1m[red]come back\\nERROR" in output
    assert "\\x1b]0;title\\x07" in output


def test_ids_and_names_of_odd_bytes_are_not_found() -> None:
    code, _, error = run("show_order", "mom\udcfc\0", "--client", "b\udcf6b")
    assert (code, error) == (REFUSED, "'b\\udcf6b' has no order with the client_order_id 'mom\\udcfc\\x00'.")
    VenueFactory()
    code, _, error = run("halt_venue", "X\udcfc\0", "--reason", "why")
    assert (code, error) == (REFUSED, "There is no venue 'X\\udcfc\\x00'. Known: XSIM.")


def test_an_order_is_shown_with_its_history() -> None:
    order = OrderFactory(status="placed", attempts=2, error="connect_refused: nobody listens", venue_order_id="NYC-1")
    code, output, _ = run("show_order", order.pk)
    assert code == DONE
    assert "buy 100 US0378331005 limit day" in output
    for word in ("accepted", "claimed", "not_sent", "acknowledged", "NYC-1", "connect_refused: nobody listens"):
        assert word in output


def test_an_order_is_found_by_its_clients_own_id() -> None:
    order = OrderFactory(owner=UserFactory(username="alice"), client_order_id="mom-1")
    OrderFactory(client_order_id="mom-1")
    code, document = run_json("show_order", "mom-1", "--client", "alice")
    assert (code, document["id"], document["owner"]) == (DONE, str(order.pk), "alice")
    assert [event["event"] for event in document["events"]] == ["accepted"]
    assert (document["limit_price"], document["venue"]) == ("10.25000000", "XSIM")


def test_an_order_that_is_not_there_is_not_found() -> None:
    missing = uuid4()
    assert run("show_order", missing) == (REFUSED, "", f"There is no order {missing}.")
    assert run("show_order", "mom-1", "--client", "bob")[::2] == (
        REFUSED,
        "'bob' has no order with the client_order_id 'mom-1'.",
    )
    assert run("show_order", "mom-1")[0] == USAGE


# ---- halt_venue, resume_venue ----


def test_a_venue_is_halted_and_resumed() -> None:
    VenueFactory()
    code, output, _ = run("halt_venue", "XSIM", "--reason", "wrong prices")
    assert (code, output) == (
        DONE,
        "XSIM is halted. Resume it with: manage.py resume_venue XSIM --reason …\n",
    )
    assert Venue.objects.get().halt_reason == "wrong prices"
    code, _, error = run("halt_venue", "XSIM", "--reason", "again")
    assert code == REFUSED
    assert "wrong prices" in error
    assert run_json("resume_venue", "XSIM", "--reason", "right again") == (
        DONE,
        {"venue": "XSIM", "halted": False, "reason": "right again"},
    )
    assert run("resume_venue", "XSIM", "--reason", "again")[::2] == (REFUSED, "XSIM is not halted.")
    assert run("halt_venue", "NOPE", "--reason", "why")[::2] == (REFUSED, "There is no venue 'NOPE'. Known: XSIM.")
    assert all(event.actor.endswith(" (command)") for event in VenueEvent.objects.all())


def test_no_letter_of_a_reason_keeps_a_venue_from_being_halted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SUDO_USER", "Andr\udce9")
    VenueFactory()
    assert run("halt_venue", "XSIM", "--reason", ODD_TEXT)[0] == DONE
    venue = Venue.objects.get()
    assert (venue.halt_reason, venue.halted_by) == (ODD_TEXT_KEPT, "operator:Andr� (command)")
    assert run("halt_venue", "XSIM", "--reason", "again")[2].endswith("f�r� \\x1b[2J" + "x" * 490 + "…")
    assert run("resume_venue", "XSIM", "--reason", ODD_TEXT)[0] == DONE
    assert [event.reason for event in VenueEvent.objects.all()] == [ODD_TEXT_KEPT] * 2


@pytest.mark.django_db(transaction=True)
def test_a_venue_is_halted_from_a_terminal_that_is_neither_utf_8_nor_can_show_it() -> None:
    VenueFactory()
    locale = {"LC_ALL": "C", "PYTHONIOENCODING": "ascii:strict", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    command: list[str | bytes] = [
        sys.executable,
        "manage.py",
        "halt_venue",
        "XSIM",
        "--reason",
        b"falsche Preise f\xfcr alles",
    ]
    environment = {**os.environ, "DATABASE_URL": database_url_of_tests(), **locale}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (
        DONE,
        "XSIM is halted. Resume it with: manage.py resume_venue XSIM --reason \\u2026\n",
    )
    assert Venue.objects.get().halt_reason == "falsche Preise f�r alles"


# ---- place_orders, reconcile_orders ----


@pytest.fixture
def exchange(tmp_path: Path, transactional_db: None) -> Iterator[RunningExchange]:
    with running_exchange(tmp_path, "--reject-instrument", "US5949181045") as running:
        VenueFactory(settings={"url": running.url, "timeout_seconds": 1.0, "settle_seconds": 0.000_001})
        yield running


@pytest.mark.django_db(transaction=True)
def test_due_orders_are_placed_in_the_foreground(exchange: RunningExchange) -> None:
    orders = [OrderFactory() for _ in range(3)]
    later = OrderFactory(attempts=1, delay=60.0)
    waits = OrderFactory(venue=VenueFactory(code="XPAR"))
    run("halt_venue", "XPAR", "--reason", "wrong prices")
    code, document = run_json("place_orders")
    assert code == DONE
    assert document.pop("seconds") >= 0
    assert document == {
        "placed": 3,
        "rejected": 0,
        "not_sent": 0,
        "unconfirmed": 0,
        "still_due": 0,
        "halted_venues": ["XPAR"],
    }
    assert {status_of(order) for order in orders} == {"placed"}
    assert {status_of(later), status_of(waits)} == {"pending"}


@pytest.mark.django_db(transaction=True)
def test_orders_that_could_not_be_placed_make_the_exit_code_1(exchange: RunningExchange) -> None:
    OrderFactory()
    OrderFactory(instrument="US5949181045")
    code, output, error = run("place_orders", "--seconds", "20")
    assert code == REFUSED
    assert output.startswith("1 placed, 1 rejected, 0 not sent, 0 unconfirmed in ")
    assert error == "1 of 2 not placed."
    assert run("place_orders", "--seconds", "0")[0] == USAGE


@pytest.mark.django_db(transaction=True)
def test_orders_of_a_venue_that_is_not_there_or_takes_nothing_are_counted_as_not_sent(
    exchange: RunningExchange,
) -> None:
    OrderFactory(venue=VenueFactory(code="XDED", settings={"url": "http://127.0.0.1:9"}))
    OrderFactory()
    exchange.set_faults(lock_out=True)
    code, output, _ = run("place_orders", "--seconds", "1", "--json")
    assert code == REFUSED
    counted = json.loads(output)
    assert counted["not_sent"] >= 2
    assert (counted["placed"], counted["unconfirmed"]) == (0, 0)


@pytest.mark.django_db(transaction=True)
def test_unconfirmed_orders_move_on_the_venues_word(exchange: RunningExchange) -> None:
    known, unknown = OrderFactory(status="unconfirmed"), OrderFactory(status="unconfirmed", parked=True)
    pending = OrderFactory()
    exchange.place(client_order_id=str(known.pk), quantity=100, limit_price="10.25")
    code, output, error = run("reconcile_orders", known.pk, unknown.pk, pending.pk)
    assert code == REFUSED
    assert sorted(output.splitlines()) == sorted(
        [
            f"{known.pk}: now placed",
            f"{unknown.pk}: now pending",
            f"{pending.pk}: It is pending, not unconfirmed.",
        ]
    )
    assert error == "1 of 3 not reconciled."
    assert (status_of(known), status_of(unknown)) == ("placed", "pending")


@pytest.mark.django_db(transaction=True)
def test_all_unconfirmed_orders_of_a_venue_are_looked_up(exchange: RunningExchange) -> None:
    order = OrderFactory(status="unconfirmed")
    exchange.place(client_order_id=str(order.pk), quantity=100, limit_price="10.25")
    code, document = run_json("reconcile_orders", "--venue", "XSIM")
    assert (code, document["reconciled"], document["undecided"]) == (DONE, 1, 0)
    assert run("reconcile_orders", "--all")[:2] == (DONE, "There is no unconfirmed order.\n")


def test_what_to_reconcile_must_be_said() -> None:
    VenueFactory()
    assert run("reconcile_orders")[0] == USAGE
    assert run("reconcile_orders", "--all", "--venue", "XSIM")[0] == USAGE
    assert run("reconcile_orders", "--venue", "NOPE")[0] == USAGE


@pytest.mark.parametrize(
    "command",
    [
        "requeue_orders",
        "place_orders",
        "reconcile_orders",
        "reconcile_restored",
        "show_order",
        "halt_venue",
        "resume_venue",
        "show_position",
        "send_webhooks",
        "cancel_orders",
    ],
)
def test_help_has_examples_and_exit_codes(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        call_command(command, "--help")
    assert ended.value.code == DONE
    told = capsys.readouterr().out
    assert f"manage.py {command}" in told
    assert "exit codes: 0 all done" in told


@pytest.mark.parametrize("app", ["exchanges", "orders", "quiktrade"])
def test_help_is_about_our_own_options(app: str) -> None:
    commands = [name for name, home in get_commands().items() if home == app]
    assert commands
    for name in commands:
        told = load_command_class(app, name).create_parser("manage.py", name).format_help()
        assert "--pythonpath" not in told, name
        assert "--settings" not in told, name


def test_the_example_of_an_error_names_one_that_makes_orders_fail() -> None:
    (named,) = re.findall(r"--error (\S+)", RequeueOrders.examples)
    reply = HttpReply(422, {"Content-Type": "application/json"}, json.dumps({"code": named}).encode())
    error = simulator._place_error(reply)
    assert isinstance(error, NotSent)
    assert error.answered  # so it costs an attempt, and ten of them make an order fail


# ---- mark_placed, mark_not_placed ----


def test_a_parked_order_is_marked_not_placed_by_command(tmp_path: Path) -> None:
    with running_exchange(tmp_path) as exchange:
        VenueFactory(settings={"url": exchange.url, "resend_safety": "nothing", "settle_seconds": 0.000_001})
        order = OrderFactory(status="unconfirmed", parked=True)
        Order.objects.update(updated_at="2020-01-01T00:00:00Z")
        call_command("mark_not_placed", str(order.pk), "--reason", "not on the screen")
    assert Order.objects.get(pk=order.pk).status == "failed"


def test_an_order_that_the_venue_denies_is_not_marked_placed_by_command(tmp_path: Path) -> None:
    with running_exchange(tmp_path) as exchange:
        VenueFactory(settings={"url": exchange.url, "resend_safety": "nothing", "settle_seconds": 0.000_001})
        order = OrderFactory(status="unconfirmed", parked=True)
        Order.objects.update(updated_at="2020-01-01T00:00:00Z")
        with pytest.raises(CommandError) as refused:
            call_command("mark_placed", str(order.pk), "--venue-order-id", "S-1", "--reason", "on the screen")
    assert refused.value.returncode == 1
    assert Order.objects.get(pk=order.pk).status == "unconfirmed"


def test_a_venues_id_of_an_order_that_cannot_be_stored_as_it_is_is_refused() -> None:
    order = OrderFactory(status="unconfirmed", parked=True)
    for wrong in ("S\udcfc1", "S" * 65):
        _, _, error = run("mark_placed", order.pk, "--venue-order-id", wrong, "--reason", "on the screen")
        assert "argument --venue-order-id: A venue's order id has 1 to 64 characters, in UTF-8." in error
    assert status_of(order) == "unconfirmed"
