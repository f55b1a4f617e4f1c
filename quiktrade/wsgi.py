"""The WSGI application that gunicorn serves."""

import os

from django.core.wsgi import get_wsgi_application

from quiktrade.database import WEB, bound_waits

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "quiktrade.settings")
application = get_wsgi_application()
bound_waits(WEB)
