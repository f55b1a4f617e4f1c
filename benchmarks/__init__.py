"""The benchmark: what QuikTrade does in a second, as a ratio to references measured in the same run.

run.py            the command: a directory, a database and an environment of its own, then all of it
environment.py    the references' own packages, apart from the product's
stage.py          what is measured: PostgreSQL, the product's processes, the references'
processes.py      the processor time and memory of a process and all its descendants, from /proc
load.py           has client.py make requests
client.py         the load generator: a process of its own, so that its cost is counted apart
inline_stack.py   reference: FastAPI, Tortoise ORM and asyncpg, which place each order before they answer
naive/            reference: one django-q2 task for each order
pgbench.py        reference: PostgreSQL storing single rows, and nothing else
venue.py          a venue so lean that it is not what is measured
seed.py           fills tables
statements.py     how long the product's hot statements take
session.py        one run: scenarios, repeats, progress
scenarios/        what is measured, one module each
report.py         the figures as a table and as JSON
plot.py           the same as a picture
"""
