"""`python -m benchmarks.speed.statements`: how long the product's hot statements take in `DATABASE_URL`.

Each line of the input is a number of rounds, and is answered with a line of JSON: milliseconds of each round, by
statement. The statements are called as the product calls them, in turns. With the argument `newest`, the orders that
are looked up are the client's newest, and not its oldest.
"""

import json
import os
import sys
import time
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import django
import psycopg

CLAIM = 64
TAIL = 100
PAGE = 500


def _calls() -> dict[str, Callable[[], Any]]:
    from django.contrib.auth import get_user_model
    from django.db import transaction
    from django.db.models import QuerySet

    from benchmarks.speed.seed import INSTRUMENT, INSTRUMENTS
    from exchanges import demo
    from orders import executions, feed, placement, selectors, streaming, submission
    from orders.models import OrderEvent
    from quiktrade.database.connection import WEB, bound_waits
    from quiktrade.jobs import doorbell

    bound_waits(WEB)
    owner = get_user_model().objects.get(username=demo.CLIENTS[0]).pk
    newest = sys.argv[1:] == ["newest"]
    looked_up = selectors.page_of_orders(owner, {}, after=None, newest_first=newest, limit=500)
    known = [(order.id, order.client_order_id) for order in looked_up]
    turn = iter(known * 1_000)
    mark, upto = feed.horizon().cluster, feed.horizon()
    line = psycopg.connect(**doorbell.connection_parameters(), autocommit=True)

    def behind(events: QuerySet[OrderEvent], count: int) -> feed.Cursor:
        """The place with this many of these events behind it."""
        return feed.Cursor(mark, *events.order_by("-stamp", "-id").values_list("stamp", "id")[count])

    last, missed = behind(OrderEvent.objects.all(), TAIL), behind(OrderEvent.objects.filter(owner_id=owner), PAGE)

    def accept() -> None:
        request = submission.NewOrderRequest(
            client_order_id=None,
            instrument=INSTRUMENT,
            side="buy",
            type="limit",
            quantity=100,
            limit_price=Decimal("187.50"),
        )
        submission.submit_order(request, owner_id=owner, actor="client:benchmark")

    def claim() -> None:
        with transaction.atomic():
            claimed = placement.claim_orders(demo.VENUE, wanted=CLAIM, actor="system:benchmark")
            assert claimed.orders, "there is nothing due"
            transaction.set_rollback(True)

    def list_newest() -> None:
        page = selectors.page_of_orders(owner, {}, after=None, newest_first=True, limit=51)
        assert len(page) == 51

    def look_up() -> None:
        assert selectors.order_of(owner, next(turn)[0])

    def look_up_by_client_order_id() -> None:
        given = {"client_order_id": next(turn)[1]}
        assert selectors.page_of_orders(owner, given, after=None, newest_first=True, limit=51)

    def tail() -> None:
        nonlocal last
        events, _ = feed.follow(line, last, limit=streaming.PAGE)
        if newest and len(events) < TAIL:
            return  # the newest ones can be read when the transaction of the mover has ended
        assert len(events) >= TAIL, f"{len(events)} events"
        last = feed.cursor_of(events[-TAIL], mark)

    def resume() -> None:
        assert len(feed.read(missed, upto, owner_id=owner, limit=PAGE)) == PAGE

    def positions() -> None:
        assert len(executions.page_of_positions(owner, venue=None, after=None, limit=501)) == INSTRUMENTS

    def list_executions() -> None:
        assert len(executions.page_of_executions(owner, {}, after=None, newest_first=True, limit=51)) == 51

    return {
        "accept": accept,
        f"claim of {CLAIM}": claim,
        "list, newest 50": list_newest,
        "look-up by id": look_up,
        "look-up by client_order_id": look_up_by_client_order_id,
        f"tail, newest {TAIL} events": tail,
        f"resume, {PAGE} events": resume,
        "positions": positions,
        "executions, newest 50": list_executions,
    }


def main() -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "quiktrade.settings")
    django.setup()
    calls = _calls()
    for line in sys.stdin:
        times: dict[str, list[float]] = {name: [] for name in calls}
        for _ in range(int(line)):
            for name, call in calls.items():
                begun = time.perf_counter()
                call()
                times[name].append((time.perf_counter() - begun) * 1000)
        sys.stdout.write(json.dumps(times) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
