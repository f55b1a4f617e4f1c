"""`manage.py send_test_alert`: whether the people who are to be told of trouble are reached."""

import time
from typing import Any

from django.conf import settings
from django.core.management.base import CommandParser

from quiktrade.alerts import incidents, notices
from quiktrade.management.operator_command import OperatorCommand, actor, refuse
from quiktrade.models import Notice

LOOK_SECONDS = 0.5


class Command(OperatorCommand):
    help = """Tell every channel of QUIKTRADE_ALERTS of a test, and that it is over.

Sends from here, one channel after the other, and says how each of them went."""
    examples = """\
  manage.py send_test_alert
  manage.py send_test_alert --json
"""

    def add_arguments(self, parser: CommandParser) -> None:
        self.add_json(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        if not settings.ALERTS:
            refuse("No channel is configured: set QUIKTRADE_ALERTS (docs/configuration.md).")
        incident = incidents.make_test(actor=actor())
        for channel in settings.ALERTS:
            while notices.send_one(channel, incident.pk):
                pass
        told = list(self._ended(incident))
        document = {
            "incident": str(incident.pk),
            "notices": [
                {"channel": each.channel, "what": each.what, "sent": each.sent_at is not None, "error": each.error}
                for each in told
            ],
        }
        lines = [f"{each.channel}, {each.what}: {'sent' if each.sent_at else each.error}" for each in told]
        self.tell(options, document, "\n".join(lines))
        if unreached := {each.channel for each in told if each.sent_at is None}:
            refuse(f"{len(unreached)} of {len(settings.ALERTS)} channels could not be told.")

    @staticmethod
    def _ended(incident: Any) -> list[Notice]:
        """Its notices, once none of them is under way: a web process or a worker may have been quicker."""
        end = time.monotonic() + notices.LEASE_SECONDS
        undecided = incident.notices.filter(sent_at=None, given_up_at=None)
        while undecided.exists() and time.monotonic() < end:
            time.sleep(LOOK_SECONDS)
        return list(incident.notices.order_by("channel", "id"))
