from django.apps import AppConfig

from orders import durability


class OrdersConfig(AppConfig):
    name = "orders"
    verbose_name = "Orders"

    def ready(self) -> None:
        durability.watch_connections()
