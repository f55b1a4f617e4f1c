from django.db import migrations

# A venue could have an order put off to a year that Python cannot read: such an order is due now.
MAKE_READABLE = """
UPDATE orders_order SET
    next_attempt_at = CASE WHEN next_attempt_at IS NOT NULL THEN statement_timestamp() END,
    lease_expires_at = CASE WHEN lease_expires_at IS NOT NULL THEN statement_timestamp() END,
    resend_before = CASE WHEN resend_before IS NOT NULL THEN statement_timestamp() END
WHERE next_attempt_at NOT BETWEEN '2000-01-01T00:00:00Z' AND '9000-01-01T00:00:00Z'
    OR lease_expires_at NOT BETWEEN '2000-01-01T00:00:00Z' AND '9000-01-01T00:00:00Z'
    OR resend_before NOT BETWEEN '2000-01-01T00:00:00Z' AND '9000-01-01T00:00:00Z'
"""


class Migration(migrations.Migration):
    dependencies = [("orders", "0004_deadlines")]

    operations = [migrations.RunSQL(MAKE_READABLE, migrations.RunSQL.noop)]
