"""The WSGI application that gunicorn serves."""

import os

import django

from quiktrade.database import WEB, bound_waits
from quiktrade.handler import Handler

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "quiktrade.settings")
django.setup(set_prefix=False)
application = Handler()
bound_waits(WEB)
