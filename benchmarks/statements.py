"""`python -m benchmarks.statements ROUNDS`: how long the product's hot statements take in `DATABASE_URL`, as JSON.

Each is called the way the product calls it, in turns with the others. Milliseconds, the median of all rounds.
"""

import json
import os
import sys
import time
from collections.abc import Callable
from decimal import Decimal
from statistics import median
from typing import Any

import django

CLAIM = 64


def _calls() -> dict[str, Callable[[], Any]]:
    from django.contrib.auth import get_user_model
    from django.db import transaction

    from benchmarks.seed import INSTRUMENT
    from orders import selectors, services
    from orders.api.pagination import page_after
    from quiktrade import demo

    owner = get_user_model().objects.get(username=demo.CLIENTS[0]).pk
    known = list(selectors.orders_of(owner).order_by("created_at").values_list("pk", "client_order_id")[:500])
    turn = iter(known * 1_000)

    def accept() -> None:
        request = services.NewOrderRequest(
            client_order_id=None,
            instrument=INSTRUMENT,
            side="buy",
            type="limit",
            quantity=100,
            limit_price=Decimal("187.50"),
        )
        services.submit_order(request, owner_id=owner, actor="client:benchmark")

    def claim() -> None:
        with transaction.atomic():
            claimed = services.claim_orders(demo.VENUE, wanted=CLAIM, actor="system:benchmark")
            assert claimed.orders, "there is nothing due"
            transaction.set_rollback(True)

    def list_newest() -> None:
        page = page_after(selectors.orders_of(owner), None, newest_first=True, limit=51)
        assert len(page) == 51

    def look_up() -> None:
        assert selectors.orders_of(owner).filter(pk=next(turn)[0]).first()

    def look_up_by_client_order_id() -> None:
        assert selectors.orders_of(owner).filter(client_order_id=next(turn)[1]).first()

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
    rounds = int(sys.argv[1])
    calls = _calls()
    times: dict[str, list[float]] = {name: [] for name in calls}
    for number in range(rounds + 20):
        for name, call in calls.items():
            begun = time.perf_counter()
            call()
            if number >= 20:  # the first few prepare the statements and fill caches
                times[name].append(time.perf_counter() - begun)
    json.dump({name: median(each) * 1000 for name, each in times.items()}, sys.stdout)


if __name__ == "__main__":
    main()
