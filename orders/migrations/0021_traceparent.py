"""The trace of an order. A column without a default, so the table is not rewritten."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("orders", "0020_deliver_webhooks")]
    operations = [
        migrations.AddField(
            model_name="order",
            name="traceparent",
            field=models.CharField(max_length=55, null=True),
        ),
    ]
