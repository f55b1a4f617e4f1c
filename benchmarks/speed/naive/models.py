from django.db import models


class Order(models.Model):
    client_order_id = models.CharField(max_length=64, unique=True)
    instrument = models.CharField(max_length=12)
    side = models.CharField(max_length=4)
    type = models.CharField(max_length=10)
    quantity = models.BigIntegerField()
    limit_price = models.DecimalField(max_digits=18, decimal_places=8)
    time_in_force = models.CharField(max_length=3)
    status = models.CharField(max_length=16)
    venue_order_id = models.CharField(max_length=64, default="")
    created_at = models.DateTimeField(auto_now_add=True)
    taken_at = models.DateTimeField(null=True)
    placed_at = models.DateTimeField(null=True)

    def __str__(self) -> str:
        return self.client_order_id


class Delivery(models.Model):
    """An event for a webhook."""

    message_id = models.CharField(max_length=64, unique=True)
    url = models.CharField(max_length=200)
    secret = models.CharField(max_length=100)
    content = models.JSONField()
    status = models.CharField(max_length=16, default="pending")
    code = models.IntegerField(null=True)
    taken_at = models.DateTimeField(null=True)
    delivered_at = models.DateTimeField(null=True)

    def __str__(self) -> str:
        return self.message_id
