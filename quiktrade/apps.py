from django.apps import AppConfig


class QuikTradeConfig(AppConfig):
    name = "quiktrade"
    verbose_name = "System"
