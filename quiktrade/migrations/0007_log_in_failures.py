from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('quiktrade', '0006_service_accounts'),
    ]

    operations = [
        migrations.CreateModel(
            name='LogInFailures',
            fields=[
                ('pk', models.CompositePrimaryKey('name', 'network', blank=True, editable=False, primary_key=True, serialize=False)),
                ('name', models.CharField(max_length=64)),
                ('network', models.CharField(max_length=50)),
                ('failures', models.PositiveIntegerField()),
                ('last_at', models.DateTimeField()),
                ('succeeded_at', models.DateTimeField(null=True)),
            ],
            options={
                'indexes': [models.Index(fields=['succeeded_at', 'last_at'], name='log_in_failures_age')],
            },
        ),
    ]
