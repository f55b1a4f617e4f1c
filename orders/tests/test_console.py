"""The operators' console: who may do what, what is recorded, and that nothing else can be changed."""

import html
import re
from collections.abc import Callable
from datetime import timedelta
from importlib import import_module
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID, uuid4

import pytest
from django.contrib import admin as django_admin
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Group, Permission, User
from django.db import connection, connections
from django.http import QueryDict
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from exchanges import circuit
from exchanges.models import Venue, VenueEvent, VenueHealth
from exchanges.tests.running import running_exchange
from orders import admin as orders_admin
from orders import attention, selectors, services
from orders.admin import listing
from orders.admin.intents import REQUEUE
from orders.attention import Counts, State
from orders.models import Order, OrderEvent, Status
from orders.tests.factories import OrderFactory, UserFactory, VenueFactory, WorkerNodeFactory, silent_venue

pytestmark = pytest.mark.django_db

LIST = "/admin/orders/order/"
Login = Callable[..., Client]


@pytest.fixture
def login(db: None) -> Login:
    def login(group: str | None, **user: Any) -> Client:
        client = Client()
        client.force_login(UserFactory(username=user.pop("username", "olga"), group=group, **user))
        return client

    return login


@pytest.fixture
def operator(login: Login) -> Client:
    return login("Operator")


@pytest.fixture
def few_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Requeue takes two orders at once."""
    monkeypatch.setitem(REQUEUE.__dict__, "most", 2)


def page(client: Client, url: str) -> str:
    response = client.get(url)
    assert response.status_code == 200, response
    return response.content.decode()


def listed(client: Client, query: str) -> set[Any]:
    """The ids on the first page of the list."""
    response = client.get(f"{LIST}?{query}")
    assert response.status_code == 200
    return {order.pk for order in response.context["cl"].result_list}


def send(client: Client, verb: str, *orders: Order, reason: str = "venue is back") -> str:
    """Send the page that asks for the reason, and return the page that follows."""
    keys = ",".join(str(order.pk) for order in orders)
    response = client.post(f"{LIST}{verb}/", {"keys": keys, "reason": reason, "next": LIST}, follow=True)
    assert response.status_code == 200
    return text_of(response.content)


def text_of(content: bytes) -> str:
    return re.sub(r"<(?!/?li)[^>]*>", "", content.decode())


def status_of(order: Order) -> str:
    return Order.objects.get(pk=order.pk).status


# ---- Intents ----


def test_requeue_records_the_operator_and_the_reason(operator: Client) -> None:
    order = OrderFactory(status="failed", attempts=3)
    assert "Requeued 1 order." in send(operator, "requeue", order)
    assert status_of(order) == Status.PENDING
    event = selectors.history(order.pk).last()
    assert event is not None
    assert (event.event, event.actor, event.reason) == ("requeued", "operator:olga", "venue is back")
    entry = LogEntry.objects.get()
    assert (entry.object_id, entry.change_message) == (str(order.pk), "Requeued: venue is back")


def test_each_refused_order_is_named_with_its_reason(operator: Client) -> None:
    failed, placed, unconfirmed = (OrderFactory(status=s) for s in ("failed", "placed", "unconfirmed"))
    answer = send(operator, "requeue", failed, placed, unconfirmed)
    assert "Requeued 1 order." in answer
    assert "2 orders not requeued:" in answer
    assert f"<li>{placed.pk}: It is at the venue.</li>" in answer
    assert f"<li>{unconfirmed.pk}: It may be at the venue: reconcile it instead." in answer
    assert [status_of(order) for order in (placed, unconfirmed)] == ["placed", "unconfirmed"]


def test_cancel_records_the_operator_and_the_reason(operator: Client) -> None:
    pending, failed, placed = (OrderFactory(status=s) for s in ("pending", "failed", "placed"))
    answer = send(operator, "cancel", pending, failed, placed, reason="client asked by telephone")
    assert "Canceled 2 orders." in answer
    assert f"{placed.pk}: It is at the venue." in answer
    assert [status_of(order) for order in (pending, failed, placed)] == ["canceled", "canceled", "placed"]


def test_reconcile_says_what_hinders_it(operator: Client) -> None:
    placed, fresh = OrderFactory(status="placed"), OrderFactory(status="unconfirmed")
    answer = send(operator, "reconcile", placed, fresh)
    assert "2 orders not reconciled:" in answer
    assert f"{fresh.pk}: Its last request may still be on its way" in answer


def test_a_parked_order_is_settled_by_an_operators_word_where_the_venue_agrees(
    operator: Client, tmp_path: Path
) -> None:
    with running_exchange(tmp_path) as exchange:
        VenueFactory(settings={"url": exchange.url, "resend_safety": "nothing", "settle_seconds": 0.000_001})
        there, absent = (OrderFactory(status="unconfirmed", parked=True) for _ in range(2))
        Order.objects.update(updated_at="2020-01-01T00:00:00Z")
        exchange.place(client_order_id=str(there.pk))
        (record,) = exchange.orders()
        told = {"keys": str(there.pk), "venue_order_id": record["venue_order_id"], "reason": "on the screen"}
        operator.post("/admin/orders/order/mark-placed/", told)
        send(operator, "mark-not-placed", absent)
    assert (status_of(there), status_of(absent)) == ("placed", "failed")
    event = selectors.history(there.pk).last()
    assert event is not None
    assert (event.event, event.actor, event.reason) == ("marked_placed", "operator:olga", "on the screen")


def test_marking_an_order_placed_needs_the_venues_id(operator: Client) -> None:
    order = OrderFactory(status="unconfirmed", parked=True)
    assert "venue&#x27;s own id" in send(operator, "mark-placed", order)
    assert status_of(order) == "unconfirmed"


def test_to_settle_orders_is_a_permission_of_its_own(operator: Client) -> None:
    order = OrderFactory(status="unconfirmed", parked=True)
    Group.objects.get(name="Operator").permissions.remove(Permission.objects.get(codename="settle_order"))
    for verb in ("mark-placed", "mark-not-placed"):
        response = operator.post(f"/admin/orders/order/{verb}/", {"keys": str(order.pk), "reason": "x"})
        assert response.status_code == 403
    assert status_of(order) == "unconfirmed"


def test_nothing_happens_without_a_reason(operator: Client) -> None:
    order = OrderFactory(status="failed")
    assert "Say why" in send(operator, "requeue", order, reason="  ")
    assert status_of(order) == Status.FAILED


def test_ticked_orders_lead_to_a_page_that_asks_why(operator: Client) -> None:
    failed, placed = OrderFactory(status="failed"), OrderFactory(status="placed")
    ticked = {"action": "requeue", "_selected_action": [str(failed.pk), str(placed.pk)]}
    # Even one that the filter does not find any more is shown, rather than silently left out.
    answer = operator.post(f"{LIST}?status__exact=failed", ticked).content.decode()
    assert "Requeue 2 orders" in answer
    assert answer.count("will be refused") == 1
    assert f'value="{failed.pk},{placed.pk}"' in answer
    assert status_of(failed) == Status.FAILED


def test_all_that_a_filter_found_can_be_chosen(operator: Client) -> None:
    OrderFactory(status="placed")
    failed = [OrderFactory(status="failed") for _ in range(3)]
    chosen = {"action": "requeue", "select_across": "1", "_selected_action": [str(failed[0].pk)]}
    answer = operator.post(f"{LIST}?status__exact=failed", chosen).content.decode()
    assert "Requeue 3 orders" in answer


def test_more_than_can_be_taken_at_once_lose_no_choice(operator: Client, few_at_once: None) -> None:
    orders = [OrderFactory(status="failed", error="connection_refused: nobody") for _ in range(3)]
    chosen = {"action": "requeue", "select_across": "1", "_selected_action": [str(orders[2].pk)]}
    asked = operator.post(f"{LIST}?status__exact=failed&venue__code__exact=XSIM", chosen).content.decode()
    assert "Requeue takes at most 2 at once, and you chose 3 orders." in asked
    assert f'value="{orders[0].pk},{orders[1].pk}"' in asked  # the oldest
    assert "python3 manage.py requeue_orders --venue XSIM --reason" in asked
    (rest,) = re.findall(r'name="rest" value="([^"]+)"', asked)

    sent = {"keys": f"{orders[0].pk},{orders[1].pk}", "reason": "mended", "rest": html.unescape(rest), "next": LIST}
    answer = operator.post(f"{LIST}requeue/", sent, follow=True).content.decode()
    (again,) = re.findall(r'href="([^"]+)" class="underline">Requeue the rest', answer)
    assert f'value="{orders[2].pk}"' in page(operator, html.unescape(again))


def test_more_ids_than_can_be_taken_at_once_are_not_acted_on(operator: Client) -> None:
    keys = ",".join(str(uuid4()) for _ in range(1001))
    answer = operator.post(f"{LIST}requeue/", {"keys": keys, "reason": "all"}, follow=True).content.decode()
    assert "Requeue takes at most 1,000 at once, and you chose 1,001 orders." in answer


@pytest.mark.parametrize(
    ("asked", "command"),
    [
        ("", "requeue_orders --older-than 0m"),
        ("status__exact=failed", "requeue_orders --older-than 0m"),
        ("needs=operator&venue__code__exact=XSIM&cause=timeout", "requeue_orders --venue XSIM --error timeout"),
        ("cause=It+was+refused&age=gt1h", "requeue_orders --error 'It was refused' --older-than 1h"),
        ("side__exact=sell", None),  # the command does not know sides: it would take others, too
        ("venue__code__exact=XSIM&venue__code__exact=XPAR", None),
        ("status__exact=placed", None),
        ("needs=parked", None),
        ("age=lt1h", None),
    ],
)
def test_the_command_that_is_named_takes_what_the_list_shows(asked: str, command: str | None) -> None:
    said = REQUEUE.command(QueryDict(asked))
    assert said == (command and f'python3 manage.py {command} --reason "…"')


def test_an_act_on_orders_leads_to_those_orders(operator: Client) -> None:
    chosen = [OrderFactory(status="failed"), OrderFactory(status="failed")]
    OrderFactory(status="failed")
    sent = {"keys": ",".join(str(order.pk) for order in chosen), "reason": "mended", "next": f"{LIST}?q=1"}
    response = operator.post(f"{LIST}requeue/", sent, follow=True)
    assert {order.pk for order in response.context["cl"].result_list} == {order.pk for order in chosen}
    assert re.search(r"Requeued: mended \(olga, .*2 pending", re.sub(r"\s+", " ", text_of(response.content)))


def test_what_another_operator_did_meanwhile_is_not_among_those_orders(operator: Client) -> None:
    mine, theirs = OrderFactory(status="failed"), OrderFactory(status="failed")
    olga, oscar = User.objects.get(username="olga"), UserFactory(group="Operator")
    first, between, last = (
        LogEntry.objects.log_actions(user.pk, Order.objects.filter(pk=order.pk), 2, "Requeued: mended")[0]
        for user, order in ((olga, mine), (oscar, theirs), (olga, mine))
    )
    assert first.pk < between.pk < last.pk
    assert listed(operator, f"acted={olga.pk}-{first.pk}-{last.pk}") == {mine.pk}


def test_an_act_on_an_orders_own_page_leads_back_there(operator: Client) -> None:
    order = OrderFactory(status="failed")
    own = f"{LIST}{order.pk}/change/"
    sent = {"keys": str(order.pk), "reason": "mended", "next": own}
    assert operator.post(f"{LIST}requeue/", sent).headers["Location"] == own


@pytest.mark.parametrize("acted", ["1-2", "x", "9-1-99999999999999999999", "1-1-1", ""])
def test_an_act_that_is_not_known_shows_no_order_and_no_fault(operator: Client, acted: str) -> None:
    order = OrderFactory()
    response = operator.get(LIST, {"acted": acted})
    assert response.status_code == 200
    assert {found.pk for found in response.context["cl"].result_list} == (set() if acted else {order.pk})


def test_what_the_list_would_not_show_chooses_nothing(operator: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(orders_admin.OrderAdmin, "list_per_page", 1)
    for _ in range(2):
        OrderFactory(status="failed")
    assert operator.get(f"{LIST}requeue/?nonsense=1").status_code == 400
    assert "Nothing is chosen." in operator.get(f"{LIST}requeue/?p=999999", follow=True).content.decode()


def test_of_many_refusals_the_first_are_named(operator: Client) -> None:
    answer = send(operator, "requeue", *(OrderFactory(status="placed") for _ in range(22)))
    assert "22 orders not requeued:" in answer
    assert answer.count("It is at the venue.") == 20
    assert "… and 2 more" in answer


def test_an_unknown_or_forged_id_changes_nothing(operator: Client) -> None:
    missing = uuid4()
    answer = operator.post(f"{LIST}requeue/", {"keys": f"x,{missing},", "reason": "why"}, follow=True)
    assert f"{missing}: There is no such order." in text_of(answer.content)
    assert "Nothing is chosen." in operator.post(f"{LIST}requeue/", {"keys": "x"}, follow=True).content.decode()


def test_looking_at_the_page_that_asks_changes_nothing(operator: Client) -> None:
    order = OrderFactory(status="failed")
    assert "Requeue order" in page(operator, f"{LIST}requeue/?keys={order.pk}&reason=x")
    assert status_of(order) == Status.FAILED


def test_another_site_can_neither_send_it_nor_be_led_to(operator: Client, login: Login) -> None:
    order = OrderFactory(status="failed")
    strict = Client(enforce_csrf_checks=True)
    strict.force_login(UserFactory(group="Operator"))
    assert strict.post(f"{LIST}requeue/", {"keys": str(order.pk), "reason": "why"}).status_code == 403
    sent = {"keys": str(order.pk), "reason": "why", "next": "https://example.com/"}
    assert urlsplit(operator.post(f"{LIST}requeue/", sent).headers["Location"])[:3] == ("", "", LIST)


def test_a_refresh_does_not_use_up_what_is_to_be_told(operator: Client) -> None:
    order = OrderFactory(status="failed")
    operator.post(f"{LIST}requeue/", {"keys": str(order.pk), "reason": "mended"})
    refreshed = operator.get("/admin/", headers={"X-Console-Refresh": "1"})
    assert "Requeued 1 order." not in refreshed.content.decode()
    assert "Requeued 1 order." in page(operator, "/admin/")


# ---- Who may do what ----


def test_a_viewer_sees_everything_and_can_do_nothing(login: Login) -> None:
    viewer, order = login("Viewer"), OrderFactory(status="failed")
    for url in (LIST, f"{LIST}{order.pk}/change/", "/admin/exchanges/venue/XSIM/change/", "/admin/"):
        assert not re.search(r"Requeue …|Cancel …|Halt …|_selected_action", page(viewer, url))
    assert viewer.post(f"{LIST}requeue/", {"keys": str(order.pk), "reason": "why"}).status_code == 403
    assert viewer.post("/admin/exchanges/venue/halt/", {"keys": "XSIM", "reason": "why"}).status_code == 403
    assert status_of(order) == Status.FAILED


def test_a_client_of_the_api_cannot_come_in(login: Login) -> None:
    assert login(None).get(LIST).headers["Location"].startswith("/admin/login/")


@pytest.mark.parametrize("superuser", [False, True])
def test_nobody_adds_changes_or_deletes_an_order(login: Login, superuser: bool) -> None:
    client, order = login("Administrator", is_superuser=superuser), OrderFactory(status="failed")
    for path in ("add/", f"{order.pk}/change/", f"{order.pk}/delete/"):
        assert client.post(f"{LIST}{path}", {"status": "placed", "post": "yes"}).status_code == 403
    client.post(LIST, {"action": "delete_selected", "_selected_action": str(order.pk), "post": "yes"})
    assert "delete" not in page(client, LIST).lower()
    assert status_of(order) == Status.FAILED
    assert not re.search(r'name="(status|quantity|_save)"|order_form', page(client, f"{LIST}{order.pk}/change/"))


@pytest.mark.parametrize("model", ["quiktrade/workernode", "django_q/schedule", "django_q/failure", "django_q/ormq"])
def test_the_systems_pages_are_read_only(login: Login, model: str) -> None:
    client = login("Viewer", is_superuser=True)
    assert client.get(f"/admin/{model}/").status_code == 200
    assert client.post(f"/admin/{model}/add/", {}).status_code == 403
    for useless in ("django_q/success/", "token_blacklist/outstandingtoken/"):
        assert client.get(f"/admin/{useless}").status_code == 404


def test_an_administrator_cannot_become_a_superuser(login: Login) -> None:
    client = login("Administrator")
    adam, root = User.objects.get(username="olga"), UserFactory(is_superuser=True, is_staff=True)
    change = {"username": "olga", "is_active": "on", "is_staff": "on", "is_superuser": "on", "email": "a@example.com"}
    assert client.post(f"/admin/auth/user/{adam.pk}/change/", change).status_code == 302
    adam.refresh_from_db()
    assert (adam.email, adam.is_superuser) == ("a@example.com", False)
    assert client.post(f"/admin/auth/user/{root.pk}/change/", change).status_code == 403
    password = {"password1": "night-shift-7", "password2": "night-shift-7"}
    assert client.post(f"/admin/auth/user/{root.pk}/password/", password).status_code == 403


# ---- The list ----


@pytest.fixture
def wanted(db: None) -> Order:
    OrderFactory(status="placed", client_order_id="hedge-1", instrument="FR0000120271", venue_order_id="PAR-1")
    walt = UserFactory(username="walther")
    return OrderFactory(status="placed", client_order_id="mom-2026-0042", venue_order_id="NYC-77", owner=walt)


@pytest.mark.parametrize(
    "text",
    [
        "{id}",
        "{hex}",
        "{start}",
        "{short}",
        "{dots}",
        "{end}",
        "mom-2026-0042",
        "mom-20",
        "NYC-77",
        "us0378331005",
        "walt",
    ],
)
def test_search_finds_an_order_by_what_is_in_hand(operator: Client, wanted: Order, text: str) -> None:
    key = str(wanted.pk)
    ends = {"start": key[:24], "end": key[-12:], "short": f"{key[:8]}…{key[-12:]}", "dots": f"{key[:8]}...{key[-12:]}"}
    assert listed(operator, f"q={text.format(id=key, hex=key.replace('-', '').upper(), **ends)}") == {wanted.pk}


@pytest.mark.parametrize("text", ["nothing", "2026-0042", "NYC", "' OR 1=1 --", "%", "ffffffff-ffff", "é"])
def test_search_finds_nothing_else(operator: Client, wanted: Order, text: str) -> None:
    response = operator.get(LIST, {"q": text})
    assert response.status_code == 200
    assert "No orders match" in response.content.decode()


def test_filters_find_what_needs_an_operator(operator: Client) -> None:
    failed, parked = OrderFactory(status="failed"), OrderFactory(status="unconfirmed", parked=True)
    looked_up, placed = OrderFactory(status="unconfirmed"), OrderFactory(status="placed", type="market", side="sell")
    elsewhere = OrderFactory(venue=VenueFactory(code="XPAR"))
    assert listed(operator, "needs=operator") == {failed.pk, parked.pk}
    assert listed(operator, "needs=parked") == {parked.pk}
    assert listed(operator, "status__exact=unconfirmed&status__exact=placed") == {looked_up.pk, placed.pk}
    assert listed(operator, "status__exact=parked&status__exact=failed") == {parked.pk, failed.pk}
    assert listed(operator, "venue__code__exact=XPAR") == {elsewhere.pk}
    assert listed(operator, "side__exact=sell&type__exact=market") == {placed.pk}


def test_a_filter_finds_the_orders_of_one_client(operator: Client, wanted: Order) -> None:
    assert listed(operator, "client=walther") == {wanted.pk}
    assert listed(operator, "client=walther&status__exact=failed") == set()
    assert listed(operator, "client=walt") == set()


def test_filters_find_orders_by_their_time(operator: Client) -> None:
    order = OrderFactory()
    today, tomorrow = timezone.now().date(), timezone.now().date() + timedelta(days=1)
    assert listed(operator, "age=lt15m") == {order.pk}
    assert listed(operator, "age=gt15m") == set()
    assert listed(operator, f"created_at_from_0={today - timedelta(days=1)}&created_at_to_0={tomorrow}") == {order.pk}
    assert listed(operator, f"created_at_from_0={tomorrow}&created_at_from_1=23:59:00") == set()
    assert listed(operator, "created_at_from_0=never&created_at_to_1=later") == {order.pk}


def test_a_page_costs_the_same_queries_for_many_orders(operator: Client) -> None:
    def queries() -> int:
        with CaptureQueriesContext(connection) as captured:
            operator.get(LIST)
        counts = [query["sql"] for query in captured if "COUNT(*)" in query["sql"] and '"orders_order"' in query["sql"]]
        assert all("LIMIT" in count for count in counts)
        return len(captured)

    OrderFactory()
    few = queries()
    for _ in range(20):
        OrderFactory()
    assert queries() == few


def test_the_count_stops_where_it_would_cost(operator: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "COUNTED_TO", 3)
    for _ in range(5):
        OrderFactory()
    assert "3+ orders, newest first" in page(operator, LIST)


def test_the_order_of_the_list_is_fixed(operator: Client) -> None:
    first, second = OrderFactory(quantity=1), OrderFactory(quantity=2)
    response = operator.get(f"{LIST}?o=1")
    assert [order.pk for order in response.context["cl"].result_list] == [second.pk, first.pk]


@pytest.mark.django_db(transaction=True)
def test_a_list_that_takes_too_long_is_given_up(login: Login, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(orders_admin, "LIST_SECONDS", 0.1)
    client, other = login("Viewer"), connections["default"].copy()
    client.get("/admin/")
    try:
        other.set_autocommit(False)
        with other.cursor() as cursor:
            cursor.execute("LOCK TABLE exchanges_venue IN ACCESS EXCLUSIVE MODE")
        nothing = State(Counts(0, 0, 0, 0, 0, 0, 0.0), [], {})  # the page's head would wait for the venues, too
        monkeypatch.setattr("orders.admin.overview._state", lambda request: nothing)
        response = client.get(LIST)
    finally:
        other.close()
    assert response.status_code == 503
    assert "Narrow it down" in response.content.decode()


# ---- Pages ----


def test_an_orders_page_tells_what_it_waits_for_and_what_happened(operator: Client) -> None:
    order = OrderFactory(attempts=2, delay=30.0, error="connection_refused: nobody listens")
    answer = page(operator, f"{LIST}{order.pk}/change/")
    assert re.search(r"attempt in (29|30) s", answer)
    assert "connection_refused: nobody listens" in answer
    assert answer.count("factory (system)") == OrderEvent.objects.filter(order=order, actor="system:factory").count()
    assert "Cancel …" in answer
    assert "Requeue …" not in answer


@pytest.mark.parametrize("status", ["pending", "submitting", "unconfirmed", "failed", "placed", "rejected", "canceled"])
def test_every_status_has_its_page(operator: Client, status: str) -> None:
    order = OrderFactory(status=status, type="stop_limit", time_in_force="gtd", expires_at=timezone.now())
    assert re.search(r"\bfor \d+ s\b", re.sub(r"<[^>]+>", "", page(operator, f"{LIST}{order.pk}/change/")))


def test_what_clients_and_venues_write_is_shown_as_text(operator: Client) -> None:
    order = OrderFactory(status="rejected", error="<script>alert(1)</script>")
    for url in (LIST, f"{LIST}{order.pk}/change/", f"{LIST}cancel/?keys={order.pk}"):
        assert "<script>alert" not in page(operator, url)


def test_an_unknown_orders_page_leads_back(operator: Client) -> None:
    assert operator.get(f"{LIST}{uuid4()}/change/").headers["Location"] == "/admin/"
    assert operator.get(f"{LIST}x/change/").headers["Location"] == "/admin/"


def test_the_first_page_shows_what_needs_an_operator(operator: Client) -> None:
    WorkerNodeFactory()
    assert "Nothing needs you" in page(operator, "/admin/")
    order = OrderFactory(status="failed", error="connection_refused: nobody listens")
    OrderFactory(status="unconfirmed", parked=True)
    answer = page(operator, "/admin/")
    assert "Nothing needs you" not in answer
    assert "1 failed · 1 parked" in answer
    assert "1 order has failed at XSIM: connection_refused" in answer
    assert "connection_refused: nobody listens" in answer
    assert reverse("admin:orders_order_change", args=[order.pk]) in answer


def test_the_tab_names_the_order_and_where_it_stands(operator: Client) -> None:
    order = OrderFactory(status="unconfirmed", parked=True, client_order_id="mom-1")
    assert "<title> Parked – mom-1 |" in page(operator, f"{LIST}{order.pk}/change/").replace("\n", "")
    assert re.search(r"<title>\s*Orders \|", page(operator, LIST))


def test_a_parked_order_is_called_so_wherever_it_stands(operator: Client) -> None:
    order = OrderFactory(status="unconfirmed", parked=True)

    def shown(client: Client, url: str) -> str:
        return page(client, url).partition('id="content"')[2].partition('id="changelist-filter"')[0]

    for url in (LIST, f"{LIST}{order.pk}/change/", f"{LIST}reconcile/?keys={order.pk}"):
        labels = re.findall(r">\s*(Parked|Unconfirmed)\s*<", shown(operator, url))
        assert set(labels) - {"Parked"} == set(), url


def test_the_head_and_the_history_of_a_page_tell_of_the_same_moment(
    operator: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    order = OrderFactory(status="failed")
    history = selectors.history

    def requeued_meanwhile(order_id: UUID) -> Any:
        services.requeue_orders([order_id], actor="operator:adam", reason="meanwhile")
        return history(order_id)

    monkeypatch.setattr(selectors, "history", requeued_meanwhile)
    answer = page(operator, f"{LIST}{order.pk}/change/")
    assert "Requeue it to have it tried again" in answer
    assert "Requeue …" in answer
    assert "meanwhile" not in answer


def test_a_requeue_that_would_expire_at_once_says_so_before(operator: Client) -> None:
    late = OrderFactory(status="failed", place_by=timezone.now() - timedelta(minutes=1))
    fresh = OrderFactory(status="failed", place_by=timezone.now() + timedelta(days=1))
    assert page(operator, f"{LIST}requeue/?keys={late.pk},{fresh.pk}").count("expires at once") == 2  # label and title
    assert "expires at once" in page(operator, f"{LIST}{late.pk}/change/")
    assert "expires at once" not in page(operator, f"{LIST}{fresh.pk}/change/")


def test_an_orders_deadlines_are_shown_wherever_it_is(operator: Client) -> None:
    order = OrderFactory(
        status="failed", time_in_force="gtd", expires_at="2031-05-06T07:08:09Z", place_by="2031-01-02T03:04:05Z"
    )
    for url in (LIST, f"{LIST}{order.pk}/change/", f"{LIST}requeue/?keys={order.pk}"):
        assert re.search(r"2031-05-06 07:08.*2031-01-02 03:04", page(operator, url), re.DOTALL), url


def test_reconcile_asks_for_no_reason_that_nothing_keeps(operator: Client) -> None:
    order = OrderFactory(status="unconfirmed")
    assert 'name="reason"' not in page(operator, f"{LIST}reconcile/?keys={order.pk}")
    answer = operator.post(f"{LIST}reconcile/", {"keys": str(order.pk)}, follow=True)
    assert "1 order not reconciled:" in text_of(answer.content)


def test_there_is_one_history_and_it_is_on_the_page(login: Login) -> None:
    client, order = login("Administrator"), OrderFactory(status="failed")
    for path in (f"{LIST}{order.pk}/", "/admin/exchanges/venue/XSIM/"):
        assert client.get(f"{path}history/").headers["Location"] == f"{path}change/#history"
        assert f"{path}history/" not in page(client, f"{path}change/")
    change = {**VENUE, "enabled": "on", "is_default": "on", "max_in_flight": "7"}
    assert client.post("/admin/exchanges/venue/XSIM/change/", change).status_code == 302
    shown = page(client, "/admin/exchanges/venue/XSIM/change/")
    assert re.search(r"olga \(console\).*Changed.*[Mm]ax in flight", shown, re.DOTALL)


def test_the_first_page_tells_who_did_what_to_which_order_and_why(login: Login) -> None:
    send(login("Operator"), "requeue", OrderFactory(status="failed", client_order_id="mom-1", quantity=7))
    OrderFactory(status="placed")
    shown = text_of(login("Viewer", username="vera").get("/admin/").content)
    assert re.search(r"olga\s+Requeued: venue is back\s+mom-1.*Buy 7 US0378331005", shown, re.DOTALL)


def test_the_first_page_does_not_say_that_nothing_needs_anybody_while_no_worker_runs(operator: Client) -> None:
    OrderFactory(attempts=1, delay=-60.0)
    answer = page(operator, "/admin/")
    assert "Nothing needs you" not in answer
    assert "no worker · 1 overdue" in answer
    assert "No worker runs: nothing is sent or looked up. 1 order waits." in answer
    assert "1 order is overdue at XSIM" in answer


def test_failures_of_one_cause_are_one_group_with_one_action(operator: Client) -> None:
    orders = [OrderFactory(status="failed", error=f"connection_refused: try {n}") for n in range(3)]
    OrderFactory(status="failed", error="connection_reset: by peer")
    answer = page(operator, "/admin/")
    assert "3 orders have failed at XSIM: connection_refused" in answer
    (act,) = re.findall(r'href="(/admin/orders/order/requeue/[^"]+connection_refused)"', answer)
    asked = page(operator, html.unescape(act))
    assert "Requeue 3 orders" in asked
    assert f'value="{",".join(str(order.pk) for order in orders)}"' in asked


def test_a_group_without_a_recorded_error_is_acted_on_alone(operator: Client) -> None:
    order = OrderFactory(status="failed", error="")
    OrderFactory(status="failed", error="connection_refused: nobody listens")
    (act,) = re.findall(r'href="(/admin/orders/order/requeue/[^"]+none[^"]+)"', page(operator, "/admin/"))
    assert f'value="{order.pk}"' in page(operator, html.unescape(act))


def test_a_group_that_is_not_counted_in_full_says_so(operator: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention, "GROUPED", 2)
    orders = [OrderFactory(status="failed") for _ in range(2)]
    assert "2 orders have failed at XSIM" in page(operator, "/admin/")
    OrderFactory(status="failed", owner=orders[0].owner)
    assert "2+ orders have failed at XSIM" in page(operator, "/admin/")


def test_who_may_only_look_is_offered_no_action_for_a_group(login: Login) -> None:
    OrderFactory(status="failed")
    answer = page(login("Viewer"), "/admin/")
    assert "1 order has failed" in answer
    assert "/admin/orders/order/requeue/" not in answer


# ---- Venues ----


def test_halt_and_resume_record_the_operator_and_the_reason(operator: Client) -> None:
    VenueFactory()
    for verb, reason in (("halt", "wrong prices"), ("resume", "prices are right")):
        answer = operator.post(f"/admin/exchanges/venue/{verb}/", {"keys": "XSIM", "reason": reason}, follow=True)
        assert "1 venue." in answer.content.decode()
    events = VenueEvent.objects.order_by("id").values_list("event", "actor", "reason")
    assert list(events) == [
        ("halted", "operator:olga", "wrong prices"),
        ("resumed", "operator:olga", "prices are right"),
    ]


def test_a_venue_that_is_halted_already_is_refused_with_the_reason(operator: Client) -> None:
    VenueFactory(halted_at=timezone.now(), halted_by="operator:adam", halt_reason="wrong prices")
    sent = {"keys": "XSIM", "reason": "to be sure"}
    answer = operator.post("/admin/exchanges/venue/halt/", sent, follow=True).content.decode()
    assert "by operator:adam: wrong prices" in answer
    assert "1 venue not halted:" in answer


def test_a_venues_page_shows_its_circuit(operator: Client) -> None:
    VenueFactory()
    url = "/admin/exchanges/venue/XSIM/change/"
    assert "nothing has been sent to it yet" in page(operator, url)

    silent_venue(times=4)
    closed = page(operator, url)
    assert re.search(r"Takes orders.*Yes.*4 requests since its last answer.*no answer in 5 s", closed, re.DOTALL)
    assert "Not answering" not in closed

    silent_venue(times=3, error="<b>refused</b>")
    shown = page(operator, url)
    assert "Not answering" in shown
    assert re.search(r"Takes orders.*No.*for \d s.*Next probe.*7 requests since its last answer", shown, re.DOTALL)
    assert "&lt;b&gt;refused&lt;/b&gt;" in shown
    assert "wait until it answers again" in shown

    circuit.record_answer("XSIM")
    answering = page(operator, url)
    assert "Orders for it are accepted and sent." in answering
    # What was wrong before is told once, in the history, with its time.
    assert re.findall(r"\S[^<>\n]*&lt;b&gt;refused&lt;/b&gt;", answering) == [
        "It does not answer: &lt;b&gt;refused&lt;/b&gt;"
    ]


def test_a_venues_page_tells_a_pause_and_refused_credentials_from_silence(operator: Client) -> None:
    order, url = OrderFactory(), "/admin/exchanges/venue/XSIM/change/"
    circuit.permit("XSIM", 1)
    circuit.record_pause("XSIM", seconds=3600.0, probe=False, error="rate_limited")
    shown = page(operator, url)
    assert "It asked for a pause" in shown
    assert re.search(r"Trouble.*Paused.*Paused until.*Next probe.*Paused by the venue.*stay away", shown, re.DOTALL)
    assert "its paused venue, probed in" in page(operator, f"{LIST}{order.pk}/change/")

    circuit.record_lock_out("XSIM", probe=False, error="not_authorized: HTTP 401")
    shown = page(operator, url)
    assert re.search(r"It refuses our credentials.*not_authorized: HTTP 401.*Renew them", shown, re.DOTALL)
    for list_url in ("/admin/exchanges/venue/", "/admin/"):
        assert "Credentials refused" in page(operator, list_url)
    assert "its locked venue, probed in" in page(operator, f"{LIST}{order.pk}/change/")


def test_lists_show_circuits_in_one_query(operator: Client) -> None:
    def queries(url: str) -> int:
        with CaptureQueriesContext(connection) as captured:
            answer = page(operator, url)
        assert "Not answering" in answer
        return len(captured)

    urls = ("/admin/exchanges/venue/", "/admin/exchanges/venue/halt/?keys=XSIM,XAAA,XBBB,XCCC", "/admin/")
    silent_venue()
    few = [queries(url) for url in urls]
    for code in ("XAAA", "XBBB", "XCCC"):
        silent_venue(code)
    assert [queries(url) for url in urls] == few
    assert re.search(r"not for \d s.*probe", page(operator, urls[0]), re.DOTALL)
    assert "no answer in 5 s" in page(operator, "/admin/")


def test_an_order_for_a_silent_venue_says_that_it_waits_for_the_venue(operator: Client) -> None:
    order = OrderFactory(venue=silent_venue())
    VenueHealth.objects.update(retry_at=timezone.now() + timedelta(seconds=9))
    for url in (LIST, f"{LIST}{order.pk}/change/"):
        assert re.search(r"its silent venue, probed in [89] s", page(operator, url))


VENUE = {"name": "Paris", "adapter": "simulator", "settings": '{"url": "http://127.0.0.1:9"}', "max_in_flight": "10"}


def errors(client: Client, url: str, **changes: str) -> dict[str, list[str]]:
    response = client.post(url, {**VENUE, **changes})
    assert response.status_code == 200
    return dict(response.context["adminform"].form.errors)


def test_an_administrator_adds_a_venue_that_its_adapter_accepts(login: Login) -> None:
    client, add = login("Administrator"), "/admin/exchanges/venue/add/"
    assert "url" in errors(client, add, code="XPAR", settings="{}")["settings"][0]
    assert "object" in errors(client, add, code="XPAR", settings="[]")["settings"][0]
    assert "adapter" in errors(client, add, code="XPAR", adapter="telepathy")
    assert "code" in errors(client, add, code="xp", enabled="on")
    VenueFactory()
    assert "XSIM is the default" in errors(client, add, code="XPAR", is_default="on")["is_default"][0]
    assert "max_per_second" in errors(client, add, code="XPAR", max_per_second="0")
    given = {**VENUE, "code": "XPAR", "enabled": "on", "max_per_second": "25"}
    assert client.post(add, given).status_code == 302
    venue = Venue.objects.get(pk="XPAR")
    assert (venue.settings, venue.max_per_second) == ({"url": "http://127.0.0.1:9"}, 25)


def test_a_venues_code_stays_and_its_halt_cannot_be_edited(login: Login) -> None:
    VenueFactory()
    client, url = login("Administrator"), "/admin/exchanges/venue/XSIM/change/"
    change = {**VENUE, "code": "XPAR", "halted_by": "me", "enabled": "on", "is_default": "on"}
    assert client.post(url, change).status_code == 302
    venue = Venue.objects.get()
    assert (venue.code, venue.name, venue.halted_by) == ("XSIM", "Paris", "")
    assert client.post("/admin/exchanges/venue/XSIM/delete/", {"post": "yes"}).status_code == 403


@pytest.mark.parametrize(
    "settings", ["null", "", "[]", '{"url": "\\u0000"}', '{"url": "\\ud800"}', '{"url": NaN}', "[" * 9_999]
)
def test_settings_that_cannot_be_stored_are_refused_with_a_word(login: Login, settings: str) -> None:
    assert errors(login("Administrator"), "/admin/exchanges/venue/add/", code="XPAR", settings=settings)["settings"]


def test_a_venues_settings_are_seen_by_who_may_change_it_and_its_secrets_by_nobody(
    login: Login, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("exchanges.admin.open_venue", lambda adapter, settings: None)  # a broker's adapter has keys
    stored = {"url": "http://127.0.0.1:9", "api_key": "k-4711", "login": {"user": "qt", "password": "s3cret"}}
    VenueFactory(settings=stored)
    url, client = "/admin/exchanges/venue/XSIM/change/", login("Operator")
    assert not re.search("127.0.0.1:9|k-4711|s3cret|api_key", page(client, url))
    administrator = login("Administrator", username="adam")
    shown = administrator.get(url).context["adminform"].form["settings"].value()
    assert "127.0.0.1:9" in shown
    assert not re.search("k-4711|s3cret", page(administrator, url))
    changed = {**VENUE, "settings": shown.replace("127.0.0.1:9", "127.0.0.1:10"), "enabled": "on", "is_default": "on"}
    assert administrator.post(url, changed).status_code == 302
    assert Venue.objects.get().settings == {**stored, "url": "http://127.0.0.1:10"}
    assert "dots" in errors(administrator, "/admin/exchanges/venue/add/", code="XPAR", settings=shown)["settings"][0]


def test_an_operator_cannot_edit_a_venue(operator: Client) -> None:
    VenueFactory()
    assert operator.post("/admin/exchanges/venue/XSIM/change/", VENUE).status_code == 403
    assert operator.post("/admin/exchanges/venue/add/", VENUE).status_code == 403


def test_the_consoles_pages_are_as_django_wants_them() -> None:
    """`manage.py check` may run before the console's pages are found, because urls.py finds them."""
    import_module("quiktrade.urls")
    assert [
        error for page_of_a_model in django_admin.site._registry.values() for error in page_of_a_model.check()
    ] == []
    assert {model.__name__ for model in django_admin.site._registry} >= {"Order", "Venue", "User"}
