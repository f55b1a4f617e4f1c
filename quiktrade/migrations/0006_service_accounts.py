from django.conf import settings
from django.contrib.auth.management import create_permissions
from django.db import migrations, models
from django.db.models.functions import Now

GROUPS = {
    "Administrator": ["view_apiclient", "add_apiclient", "change_apiclient"],
}


def grant(apps, schema_editor):
    config = apps.get_app_config("quiktrade")
    config.models_module = True
    create_permissions(config, apps=apps, verbosity=0)
    config.models_module = None
    permissions = apps.get_model("auth", "Permission").objects.filter(content_type__app_label="quiktrade")
    for name, codenames in GROUPS.items():
        for group in apps.get_model("auth", "Group").objects.filter(name=name):  # none where it was renamed
            group.permissions.add(*permissions.filter(codename__in=codenames))


class Migration(migrations.Migration):

    dependencies = [
        ('quiktrade', '0005_sessions'),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.CreateModel(
            name='ApiClient',
            fields=[
                ('id', models.CharField(max_length=32, primary_key=True, serialize=False)),
                ('name', models.CharField(max_length=100)),
                ('scope', models.CharField(max_length=100)),
                ('networks', models.TextField(blank=True, default='')),
                ('made_at', models.DateTimeField(db_default=Now())),
                ('expires_at', models.DateTimeField(blank=True, null=True)),
                ('disabled_at', models.DateTimeField(null=True)),
                ('user', models.ForeignKey(on_delete=models.deletion.CASCADE, related_name='+', to=settings.AUTH_USER_MODEL, verbose_name='account')),
            ],
            options={
                'verbose_name': 'service account',
            },
        ),
        migrations.CreateModel(
            name='ApiClientSecret',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('digest', models.CharField(max_length=64, unique=True)),
                ('made_at', models.DateTimeField(db_default=Now())),
                ('last_used_at', models.DateTimeField(null=True)),
                ('client', models.ForeignKey(on_delete=models.deletion.CASCADE, related_name='secrets', to='quiktrade.apiclient')),
            ],
        ),
        migrations.RunPython(grant, migrations.RunPython.noop),
    ]
