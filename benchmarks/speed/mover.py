"""`python -m benchmarks.speed.mover`: moves orders to the archive in `DATABASE_URL`, at the rate of the product's job.

All orders that ended are old enough, but those of the last `BASE` milliseconds of the table, among which are those that
are read meanwhile. Each line of the input is a number of seconds, and is answered with the number of orders that were
moved in them.
"""

import os
import sys
from datetime import timedelta

import django


def main() -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "quiktrade.settings")
    django.setup()
    from django.conf import settings
    from django.db.models import Max

    from benchmarks.speed.seed import BASE
    from orders import archive, retention
    from orders.models import Order

    archive.LEAST_AGE = timedelta()
    newest = Order.objects.filter(client_order_id__startswith="seed-").aggregate(at=Max("created_at"))["at"]
    before = newest - timedelta(milliseconds=BASE)
    for line in sys.stdin:
        run = retention.move_orders(before, seconds=float(line), rate=settings.MOVE_RATE)
        sys.stdout.write(f"{run.moved.orders}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
