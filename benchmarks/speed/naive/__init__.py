"""Reference: one django-q2 task for each order, on django-q2's own ORM broker, each task placing its order.

Same Django, same PostgreSQL, same venue; what it leaves out is what the product adds: leases, fences, events,
reconciliation. django-q2 is set up for speed as far as its settings allow (see `settings.py`).
"""
