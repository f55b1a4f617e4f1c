"""Sessions instead of the token blacklist, whose rows held refresh tokens in clear.

The rows go, and the empty tables stay: processes of the version before use them until they are replaced. A later
version drops them.

A new password and a deactivation end the account's sessions in the same transaction, whoever writes them.
"""

import uuid

from django.conf import settings
from django.db import migrations, models
from django.db.models.functions import Now

FORWARDS = """
CREATE FUNCTION quiktrade_end_sessions() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE quiktrade_session
    SET revoked_at = statement_timestamp(),
        revoked_for = CASE WHEN NEW.is_active THEN 'password' ELSE 'deactivated' END
    WHERE user_id = NEW.id AND revoked_at IS NULL;
    RETURN NULL;
END $$;
CREATE TRIGGER user_end_sessions AFTER UPDATE OF password, is_active ON auth_user
    FOR EACH ROW
    WHEN (OLD.password IS DISTINCT FROM NEW.password OR (OLD.is_active AND NOT NEW.is_active))
    EXECUTE FUNCTION quiktrade_end_sessions();
DO $$
BEGIN
    IF to_regclass('token_blacklist_outstandingtoken') IS NOT NULL THEN
        TRUNCATE token_blacklist_blacklistedtoken, token_blacklist_outstandingtoken;
    END IF;
END $$;
"""
BACKWARDS = """
DROP TRIGGER user_end_sessions ON auth_user;
DROP FUNCTION quiktrade_end_sessions();
"""


class Migration(migrations.Migration):

    dependencies = [
        ('quiktrade', '0004_signing_keys'),
        ('auth', '0012_alter_user_first_name_max_length'),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.CreateModel(
            name='Session',
            fields=[
                ('id', models.UUIDField(default=uuid.uuid4, primary_key=True, serialize=False)),
                ('generation', models.PositiveIntegerField(default=1)),
                ('made_at', models.DateTimeField(db_default=Now())),
                ('refreshed_at', models.DateTimeField(db_default=Now())),
                ('expires_at', models.DateTimeField()),
                ('revoked_at', models.DateTimeField(null=True)),
                ('revoked_for', models.CharField(blank=True, default='', max_length=20)),
                ('user', models.ForeignKey(on_delete=models.deletion.CASCADE, related_name='+', to=settings.AUTH_USER_MODEL)),
            ],
        ),
        migrations.RunSQL(FORWARDS, BACKWARDS),
    ]
