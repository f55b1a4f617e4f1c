"""The archive of orders that ended long ago, and the clients' ids that stay taken.

No row is read or written, and the locks on tables in use are those of adding a trigger and a column with a constant
default. The table of the clients' ids begins empty, because the orders that are not archived have their own unique
constraint.
"""

import django.db.models.deletion
import django.db.models.functions.datetime
from django.conf import settings
from django.db import migrations, models

# PostgreSQL copies the columns and which of them may be null. What else is true of a row was checked before it came.
TABLES = """
CREATE TABLE orders_archivedorder (LIKE orders_order, PRIMARY KEY (id)) PARTITION BY RANGE (id);
CREATE INDEX archivedorder_list ON orders_archivedorder (owner_id, created_at DESC, id DESC);
CREATE INDEX archivedorder_venue_order_id ON orders_archivedorder (venue_order_id) WHERE venue_order_id <> '';

CREATE TABLE orders_archivedevent (LIKE orders_orderevent, PRIMARY KEY (order_id, sequence))
    PARTITION BY RANGE (order_id);

CREATE TABLE orders_archivedexecution (LIKE orders_execution, PRIMARY KEY (order_id, id))
    PARTITION BY RANGE (order_id);
CREATE INDEX archivedexecution_list ON orders_archivedexecution (owner_id, executed_at, id) WHERE kind <> 'busted';
CREATE INDEX archivedexecution_position ON orders_archivedexecution (owner_id, venue_id, instrument, id);

CREATE TABLE orders_archivedrequest (LIKE orders_orderrequest, PRIMARY KEY (order_id, id))
    PARTITION BY RANGE (order_id);
CREATE INDEX archivedrequest_id ON orders_archivedrequest (id);
"""
DROP_TABLES = """
DO $$ BEGIN
    IF EXISTS (SELECT FROM orders_archivedorder) THEN
        RAISE EXCEPTION 'The archive has orders: move them back before its tables are removed';
    END IF;
END $$;
DROP TABLE orders_archivedorder, orders_archivedevent, orders_archivedexecution, orders_archivedrequest;
"""

# History is still never changed. It is deleted by a transaction that says it is the mover, if what it deletes is in
# the other table when its statement ends. The planner cannot know how few rows were deleted, so it is told to look
# each of them up.
TRIGGERS = """
CREATE FUNCTION refuse_to_lose_history() RETURNS trigger LANGUAGE plpgsql
    SET enable_hashjoin = off SET enable_mergejoin = off SET enable_seqscan = off AS $$
DECLARE lost boolean;
BEGIN
    EXECUTE format('SELECT EXISTS (SELECT FROM gone g WHERE NOT EXISTS (
        SELECT FROM %I kept WHERE kept.order_id = g.order_id AND kept.id = g.id AND kept.%I = g.%2$I))',
        TG_ARGV[0], TG_ARGV[1]) INTO lost;
    IF lost THEN
        RAISE EXCEPTION '% is append-only: what is deleted must be in %', TG_TABLE_NAME, TG_ARGV[0]
            USING ERRCODE = 'restrict_violation';
    END IF;
    RETURN NULL;
END $$;

CREATE OR REPLACE TRIGGER orderevent_append_only BEFORE UPDATE ON orders_orderevent
    FOR EACH ROW EXECUTE FUNCTION refuse_to_change_history();
CREATE TRIGGER orderevent_moved_only BEFORE DELETE ON orders_orderevent
    FOR EACH ROW WHEN (current_setting('quiktrade.mover', true) IS DISTINCT FROM 'on')
    EXECUTE FUNCTION refuse_to_change_history();
CREATE TRIGGER orderevent_not_lost AFTER DELETE ON orders_orderevent REFERENCING OLD TABLE AS gone
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_to_lose_history('orders_archivedevent', 'sequence');

CREATE OR REPLACE TRIGGER execution_append_only BEFORE UPDATE ON orders_execution
    FOR EACH ROW EXECUTE FUNCTION refuse_to_change_history();
CREATE TRIGGER execution_moved_only BEFORE DELETE ON orders_execution
    FOR EACH ROW WHEN (current_setting('quiktrade.mover', true) IS DISTINCT FROM 'on')
    EXECUTE FUNCTION refuse_to_change_history();
CREATE TRIGGER execution_not_lost AFTER DELETE ON orders_execution REFERENCING OLD TABLE AS gone
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_to_lose_history('orders_archivedexecution', 'execution_id');

CREATE TRIGGER archivedevent_not_lost AFTER DELETE ON orders_archivedevent REFERENCING OLD TABLE AS gone
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_to_lose_history('orders_orderevent', 'sequence');
CREATE TRIGGER archivedexecution_not_lost AFTER DELETE ON orders_archivedexecution REFERENCING OLD TABLE AS gone
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_to_lose_history('orders_execution', 'execution_id');
""" + "".join(
    f"""
CREATE TRIGGER {table}_append_only BEFORE UPDATE ON orders_{table}
    FOR EACH ROW EXECUTE FUNCTION refuse_to_change_history();
CREATE TRIGGER {table}_moved_only BEFORE DELETE ON orders_{table}
    FOR EACH ROW WHEN (current_setting('quiktrade.mover', true) IS DISTINCT FROM 'on')
    EXECUTE FUNCTION refuse_to_change_history();
"""
    for table in ("archivedorder", "archivedevent", "archivedexecution", "archivedrequest")
)
DROP_TRIGGERS = """
DROP TRIGGER orderevent_moved_only ON orders_orderevent;
DROP TRIGGER orderevent_not_lost ON orders_orderevent;
DROP TRIGGER execution_moved_only ON orders_execution;
DROP TRIGGER execution_not_lost ON orders_execution;
DROP TRIGGER archivedevent_not_lost ON orders_archivedevent;
DROP TRIGGER archivedexecution_not_lost ON orders_archivedexecution;
DROP FUNCTION refuse_to_lose_history();
CREATE OR REPLACE TRIGGER orderevent_append_only BEFORE UPDATE OR DELETE ON orders_orderevent
    FOR EACH ROW EXECUTE FUNCTION refuse_to_change_history();
CREATE OR REPLACE TRIGGER execution_append_only BEFORE UPDATE OR DELETE ON orders_execution
    FOR EACH ROW EXECUTE FUNCTION refuse_to_change_history();
"""


class Migration(migrations.Migration):
    dependencies = [
        ("orders", "0021_traceparent"),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]
    operations = [
        migrations.CreateModel(
            name="ClientKey",
            fields=[
                (
                    "pk",
                    models.CompositePrimaryKey(
                        "owner_id", "client_order_id", "of", blank=True, editable=False, primary_key=True,
                        serialize=False,
                    ),
                ),
                ("client_order_id", models.CharField(max_length=64)),
                ("of", models.CharField(choices=[("order", "Order"), ("request", "Request")], max_length=7)),
                ("order_id", models.UUIDField()),
                (
                    "owner",
                    models.ForeignKey(
                        db_constraint=False, db_index=False, on_delete=django.db.models.deletion.PROTECT,
                        related_name="+", to=settings.AUTH_USER_MODEL,
                    ),
                ),
            ],
        ),
        migrations.CreateModel(
            name="ArchivedOwner",
            fields=[
                (
                    "owner",
                    models.OneToOneField(
                        on_delete=django.db.models.deletion.PROTECT, primary_key=True, related_name="+",
                        serialize=False, to=settings.AUTH_USER_MODEL,
                    ),
                ),
                ("newest_order_at", models.DateTimeField()),
                ("newest_execution_at", models.DateTimeField(null=True)),
                ("stamp", models.BigIntegerField()),
                ("event_id", models.BigIntegerField()),
            ],
        ),
        migrations.CreateModel(
            name="ArchiveMonth",
            fields=[
                ("month", models.DateField(primary_key=True, serialize=False)),
                ("orders", models.BigIntegerField(db_default=0)),
                ("version", models.BigIntegerField(db_default=1)),
                ("exported_version", models.BigIntegerField(null=True)),
                ("exported_at", models.DateTimeField(null=True)),
                ("dropping_at", models.DateTimeField(null=True)),
                ("dropped_at", models.DateTimeField(null=True)),
                ("updated_at", models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
            ],
            options={
                "constraints": [
                    models.CheckConstraint(
                        condition=models.Q(("orders__gte", 0)), name="archivemonth_orders_not_negative"
                    )
                ],
            },
        ),
        migrations.AddField(
            model_name="position",
            name="incomplete",
            field=models.BooleanField(db_default=False),
        ),
        migrations.RunSQL(TABLES, DROP_TABLES),
        migrations.RunSQL(TRIGGERS, DROP_TRIGGERS),
    ]
