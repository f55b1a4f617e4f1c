"""The WSGI application that gunicorn serves: the API or the console, as QUIKTRADE_SERVICE says."""

import os
from typing import Any

import django
from django.conf import settings

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "quiktrade.settings")
django.setup(set_prefix=False)

from quiktrade.api.handler import Handler  # noqa: E402  these need the apps to be there
from quiktrade.database.connection import WEB, bound_waits  # noqa: E402
from quiktrade.database.pool import use_pool  # noqa: E402
from quiktrade.web.admission import Admitting  # noqa: E402

CONNECTIONS_FOR_ORDERS = 2
"""Of each process's connections, those that reads leave alone: one for the orders that are stored together, one for the
look-ups of repeated ones."""

application: Any = Handler()
bound_waits(WEB)
if settings.SERVICE == "api":
    use_pool(settings.WEB_CONNECTIONS)
    application = Admitting(
        application,
        most=settings.WEB_IN_HAND,
        most_body=settings.API_MAX_BATCH_BYTES,
        most_reading=max(1, settings.WEB_CONNECTIONS - CONNECTIONS_FOR_ORDERS),
    )
