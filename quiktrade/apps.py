from django.apps import AppConfig

from quiktrade.database import durability


class QuikTradeConfig(AppConfig):
    name = "quiktrade"
    verbose_name = "System"

    def ready(self) -> None:
        durability.watch_connections()
