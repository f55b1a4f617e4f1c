"""The rows about the archive. `orders.archive` writes them; they stand here because `orders.models` must import them.

The archive itself is four tables that are partitioned by month and have the columns of the tables that they archive:
orders_archivedorder, orders_archivedevent, orders_archivedexecution and orders_archivedrequest. They have no models,
because Django makes no partitions; migration 0022 makes them.
"""

from django.conf import settings
from django.db import models
from django.db.models import Q
from django.db.models.functions import Now


class ClientKey(models.Model):
    """A client's own id of an order, or of a request about one, that was moved to the archive or is about to be.

    A `client_order_id` is never taken twice, however old it is: the statements that store an order or a request store
    none whose id is here. The rows of what is not archived have unique constraints of their own.
    """

    class Of(models.TextChoices):
        ORDER = "order"
        REQUEST = "request"

    pk = models.CompositePrimaryKey("owner_id", "client_order_id", "of")
    # The order's row had the constraint of its owner. Here it would be checked with every row that is moved.
    owner = models.ForeignKey(
        settings.AUTH_USER_MODEL, models.PROTECT, related_name="+", db_index=False, db_constraint=False
    )
    client_order_id = models.CharField(max_length=64)
    of = models.CharField(max_length=7, choices=Of)
    order_id = models.UUIDField()  # the order, or the one that the request is about

    def __str__(self) -> str:
        return f"{self.of} {self.client_order_id}"


class ArchivedOwner(models.Model):
    """How new the newest is of what an owner has in the archive. Whatever is newer needs no look there."""

    owner = models.OneToOneField(settings.AUTH_USER_MODEL, models.PROTECT, primary_key=True, related_name="+")
    newest_order_at = models.DateTimeField()  # by the time of creation
    newest_execution_at = models.DateTimeField(null=True)
    stamp = models.BigIntegerField()  # of the newest event, as the feed has them
    event_id = models.BigIntegerField()

    def __str__(self) -> str:
        return f"archive of {self.owner_id}"


class ArchiveMonth(models.Model):
    """A month of the archive: the orders whose ids were given out in it.

    `version` rises whenever rows come or go. What was exported is `exported_version`, and only a month that has not
    changed since is dropped.
    """

    month = models.DateField(primary_key=True)  # its first day
    orders = models.BigIntegerField(db_default=0)
    version = models.BigIntegerField(db_default=1)
    exported_version = models.BigIntegerField(null=True)
    exported_at = models.DateTimeField(null=True)
    dropping_at = models.DateTimeField(null=True)  # nothing is moved to it or from it any more
    dropped_at = models.DateTimeField(null=True)
    updated_at = models.DateTimeField(db_default=Now())

    class Meta:
        constraints = [
            models.CheckConstraint(condition=Q(orders__gte=0), name="archivemonth_orders_not_negative"),
        ]

    def __str__(self) -> str:
        return f"{self.month:%Y-%m}"
