"""`python -m benchmarks.speed.statements`: how long the product's hot statements take in `DATABASE_URL`.

Each line of the input is a number of rounds, and is answered with a line of JSON: milliseconds of each round, by
statement. The statements are called as the product calls them, in turns.
"""

import json
import os
import sys
import time
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import django

CLAIM = 64


def _calls() -> dict[str, Callable[[], Any]]:
    from django.contrib.auth import get_user_model
    from django.db import transaction

    from benchmarks.speed.seed import INSTRUMENT
    from exchanges import demo
    from orders import placement, selectors, submission

    owner = get_user_model().objects.get(username=demo.CLIENTS[0]).pk
    oldest = selectors.page_of_orders(owner, {}, after=None, newest_first=False, limit=500)
    known = [(order.id, order.client_order_id) for order in oldest]
    turn = iter(known * 1_000)

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

    return {
        "accept": accept,
        f"claim of {CLAIM}": claim,
        "list, newest 50": list_newest,
        "look-up by id": look_up,
        "look-up by client_order_id": look_up_by_client_order_id,
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
