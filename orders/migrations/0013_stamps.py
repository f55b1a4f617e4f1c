"""The position of each event in the feed of all events. The defaults are constant, so no row is written."""

import django.db.models.deletion
from django.conf import settings
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("orders", "0012_executions"),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]
    operations = [
        migrations.AddField("order", "stamp", models.BigIntegerField(db_default=1)),
        migrations.AddField(
            "orderevent",
            "owner",
            models.ForeignKey(
                db_constraint=False,
                db_index=False,
                null=True,
                on_delete=django.db.models.deletion.PROTECT,
                related_name="+",
                to=settings.AUTH_USER_MODEL,
            ),
        ),
        migrations.AddField("orderevent", "stamp", models.BigIntegerField(db_default=1)),
    ]
