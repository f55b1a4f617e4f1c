from django.apps import AppConfig

from quiktrade.database import durability


class QuikTradeConfig(AppConfig):
    name = "quiktrade"
    verbose_name = "System"

    def ready(self) -> None:
        from quiktrade.auth import audit  # it needs the models

        audit.watch_console()
        durability.watch_connections()
