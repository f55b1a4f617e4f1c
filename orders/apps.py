from django.apps import AppConfig

from quiktrade.database import durability


class OrdersConfig(AppConfig):
    name = "orders"
    verbose_name = "Orders"

    def ready(self) -> None:
        durability.watch_connections()
