"""The fault laboratory: runs the whole system, breaks it in every way it knows, and judges what is left.

    plan.py        which faults, when: a pure function of the seed
    system.py      the system under test: a private PostgreSQL, web, workers, exchange, all its own
    processes.py   one part of it; and who is who among the processes that it started
    proxy.py       what lies between the workers and the exchange, and does it harm
    saboteur.py    carries the plan out
    traffic.py     the clients, who repeat an order until it is answered, and write down what they were told
    evidence.py    what the database and the exchange know
    invariants.py  what must be so, as pure functions over those three
    report.py      the figures
    run.py         all of it, in order

`manage.py chaos` is its command line. It needs Linux.
"""
