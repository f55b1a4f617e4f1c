from django.db import migrations, models
from django.db.models.functions import Now


class Migration(migrations.Migration):

    dependencies = [
        ('quiktrade', '0003_settle_orders'),
    ]

    operations = [
        migrations.CreateModel(
            name='SigningKey',
            fields=[
                ('kid', models.CharField(max_length=32, primary_key=True, serialize=False)),
                ('private', models.TextField()),
                ('made_at', models.DateTimeField(db_default=Now())),
                ('signs_from', models.DateTimeField()),
                ('verifies_until', models.DateTimeField(null=True)),
            ],
        ),
    ]
