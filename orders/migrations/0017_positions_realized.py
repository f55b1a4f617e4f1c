"""What a position has realized, and its version. The defaults are constants, so no row is written."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("orders", "0016_working_orders")]
    operations = [
        migrations.AddField(
            model_name="position",
            name="realized",
            field=models.DecimalField(db_default=0, decimal_places=8, max_digits=48),
        ),
        migrations.AddField(
            model_name="position",
            name="version",
            field=models.BigIntegerField(db_default=1),
        ),
    ]
