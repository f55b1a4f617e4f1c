"""The fault laboratory: runs the whole system, breaks it in every way it knows, and checks the result.

    plan.py        which faults, when: a pure function of the seed
    system.py      the system under test: its own PostgreSQL, web, workers and exchange
    proxy.py       the connection between the workers and the exchange, and what disturbs it
    saboteur.py    carries the plan out
    traffic.py     the clients, who repeat an order until it is answered, and record what they were told
    listeners.py   the clients who are told what becomes of their orders, and what they heard
    records.py     what is known at the end, as plain rows
    evidence.py    reads what the database and the exchange know
    invariants.py  what must hold, as pure functions over what the clients, the database and the exchange know
    after_placement.py  the same of executions, positions, cancels, replacements, streams and webhooks
    report.py      the figures
    run.py         all of it, in order

`manage.py chaos` is its command line. It needs Linux.
"""
