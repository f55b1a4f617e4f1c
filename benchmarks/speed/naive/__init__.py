"""Reference: one django-q2 task for each order, on django-q2's own ORM broker. Each task places its order.

Of webhooks likewise: one task for each delivery, which signs and sends it with the product's libraries.

It uses the same Django, PostgreSQL and venue, and leaves out what the product adds: leases, fences, events and
reconciliation. django-q2 is set up for speed as far as its settings allow (see `settings.py`).
"""
