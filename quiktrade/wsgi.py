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

application: Any = Handler()
bound_waits(WEB)
if settings.SERVICE == "api":
    use_pool(settings.WEB_CONNECTIONS)
    application = Admitting(
        application, settings.WEB_IN_HAND, settings.API_MAX_BATCH_BYTES, settings.WEB_IN_HAND_OF_CLIENT
    )
