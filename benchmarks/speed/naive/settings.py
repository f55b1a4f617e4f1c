"""The Django settings of this reference: what it needs, and nothing else."""

import os

SECRET_KEY = "not a secret: nothing is signed for anybody but itself"  # noqa: S105
USE_TZ = True
INSTALLED_APPS = ["django.contrib.contenttypes", "django.contrib.auth", "django_q", "benchmarks.speed.naive"]
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": "naive",
        "HOST": os.environ["NAIVE_HOST"],
        "PORT": "5432",
        "USER": os.environ["NAIVE_USER"],
        "CONN_MAX_AGE": 600,  # otherwise each task would make a connection
    }
}
Q_CLUSTER = {
    "name": "naive",
    "orm": "default",
    "workers": int(os.environ["NAIVE_WORKERS"]),
    "bulk": 50,  # tasks that the pusher takes at once
    "queue_limit": 200,
    "poll": 0.05,
    "timeout": 60,
    "retry": 120,
    "save_limit": -1,  # successes are not saved: five statements less for each task
    "ack_failures": True,
    "max_attempts": 1,
    "catch_up": False,
    "log_level": "WARNING",
}
VENUE_PORT = int(os.environ["NAIVE_VENUE_PORT"])
