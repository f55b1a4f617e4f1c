"""Worker nodes, as they report themselves."""

from django.db import models


class WorkerNode(models.Model):
    """One job cluster. Its heartbeat passed through its pusher, one of its workers and its monitor."""

    name = models.CharField(primary_key=True, max_length=200)
    started_at = models.DateTimeField()
    heartbeat_at = models.DateTimeField()

    def __str__(self) -> str:
        return self.name
