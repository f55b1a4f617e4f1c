"""The console's groups. A Viewer sees, an Operator acts on orders and venues, an Administrator keeps venues and
accounts. Nobody's group may edit an order or delete anything."""

from django.contrib.auth.management import create_permissions
from django.db import migrations

VIEWER = {
    "orders": ["view_order", "view_orderevent"],
    "exchanges": ["view_venue", "view_venueevent"],
    "quiktrade": ["view_workernode"],
    "django_q": ["view_schedule", "view_failure", "view_ormq"],
}
OPERATOR = {"orders": ["operate_order"], "exchanges": ["halt_venue"]}
ADMINISTRATOR = {
    "exchanges": ["add_venue", "change_venue"],
    "auth": ["view_user", "add_user", "change_user", "view_group"],
}
GROUPS = {
    "Viewer": [VIEWER],
    "Operator": [VIEWER, OPERATOR],
    "Administrator": [VIEWER, OPERATOR, ADMINISTRATOR],
}


def forwards(apps, schema_editor):
    group_model, permission_model = apps.get_model("auth", "Group"), apps.get_model("auth", "Permission")
    for label in (*VIEWER, "auth"):
        # Django makes permissions only after the last migration; these groups need them now.
        config = apps.get_app_config(label)
        config.models_module = True
        create_permissions(config, apps=apps, verbosity=0)
        config.models_module = None
    for name, parts in GROUPS.items():
        group, _ = group_model.objects.get_or_create(name=name)
        for part in parts:
            for label, codenames in part.items():
                group.permissions.add(
                    *permission_model.objects.filter(content_type__app_label=label, codename__in=codenames)
                )


def backwards(apps, schema_editor):
    apps.get_model("auth", "Group").objects.filter(name__in=GROUPS).delete()


class Migration(migrations.Migration):
    dependencies = [
        ("quiktrade", "0001_initial"),
        ("orders", "0001_initial"),
        ("exchanges", "0001_initial"),
        ("auth", "0012_alter_user_first_name_max_length"),
        ("contenttypes", "0002_remove_content_type_name"),
        ("django_q", "0019_alter_task_options_alter_ormq_key_alter_ormq_lock_and_more"),
    ]
    operations = [migrations.RunPython(forwards, backwards)]
