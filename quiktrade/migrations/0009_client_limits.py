import django.db.models.deletion
from django.conf import settings
from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('auth', '0012_alter_user_first_name_max_length'),
        ('quiktrade', '0008_second_factors'),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.CreateModel(
            name='ClientLimits',
            fields=[
                ('user', models.OneToOneField(on_delete=django.db.models.deletion.CASCADE, primary_key=True, related_name='limits', serialize=False, to=settings.AUTH_USER_MODEL, verbose_name='account')),
                ('orders_per_second', models.PositiveIntegerField(null=True)),
                ('reads_per_second', models.PositiveIntegerField(null=True)),
            ],
        ),
        migrations.CreateModel(
            name='TokenBucket',
            fields=[
                ('pk', models.CompositePrimaryKey('user', 'name', blank=True, editable=False, primary_key=True, serialize=False)),
                ('name', models.CharField(max_length=10)),
                ('tokens', models.FloatField()),
                ('refilled_at', models.DateTimeField()),
                ('user', models.ForeignKey(db_index=False, on_delete=django.db.models.deletion.CASCADE, related_name='+', to=settings.AUTH_USER_MODEL)),
            ],
        ),
        # A bucket says nothing that is worth a wait for the disk. It is written many times a second, in place.
        migrations.RunSQL(
            'ALTER TABLE quiktrade_tokenbucket SET UNLOGGED; '
            'ALTER TABLE quiktrade_tokenbucket SET (fillfactor = 50, autovacuum_vacuum_threshold = 1000)',
            migrations.RunSQL.noop,
        ),
    ]
