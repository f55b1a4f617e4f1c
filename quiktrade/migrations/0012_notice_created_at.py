"""Since when a channel is to be told: the age of what it could not be told yet."""

import django.db.models.functions.datetime
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("quiktrade", "0011_reused_sessions"),
    ]

    operations = [
        migrations.AddField(
            model_name="notice",
            name="created_at",
            field=models.DateTimeField(db_default=django.db.models.functions.datetime.Now()),
        ),
    ]
