"""Finds the sessions that ended because a refresh token was used again."""

from django.contrib.postgres.operations import AddIndexConcurrently
from django.db import migrations, models


class Migration(migrations.Migration):
    atomic = False  # an index is built while tokens are refreshed

    dependencies = [('quiktrade', '0010_incidents')]
    operations = [
        AddIndexConcurrently(
            'session',
            models.Index('revoked_at', condition=models.Q(revoked_for='reuse'), name='session_reused'),
        ),
    ]
