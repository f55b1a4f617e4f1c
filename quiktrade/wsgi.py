"""The WSGI application that gunicorn serves."""

import os

import django

from quiktrade.api.handler import Handler
from quiktrade.database.connection import WEB, bound_waits

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "quiktrade.settings")
django.setup(set_prefix=False)
application = Handler()
bound_waits(WEB)
