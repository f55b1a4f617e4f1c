"""The history of an order is written once: the database itself refuses to change or delete an event."""

from django.db import migrations

FORWARDS = """
CREATE FUNCTION refuse_to_change_history() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% is append-only: % refused', TG_TABLE_NAME, TG_OP USING ERRCODE = 'restrict_violation';
END $$;
CREATE TRIGGER orderevent_append_only BEFORE UPDATE OR DELETE ON orders_orderevent
    FOR EACH ROW EXECUTE FUNCTION refuse_to_change_history();
CREATE TRIGGER venueevent_append_only BEFORE UPDATE OR DELETE ON exchanges_venueevent
    FOR EACH ROW EXECUTE FUNCTION refuse_to_change_history();
"""
BACKWARDS = """
DROP TRIGGER orderevent_append_only ON orders_orderevent;
DROP TRIGGER venueevent_append_only ON exchanges_venueevent;
DROP FUNCTION refuse_to_change_history();
"""


class Migration(migrations.Migration):
    dependencies = [("orders", "0001_initial"), ("exchanges", "0001_initial")]
    operations = [migrations.RunSQL(FORWARDS, BACKWARDS)]
