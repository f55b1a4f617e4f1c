"""The benchmark: what QuikTrade does in a second, as a ratio to references measured in the same run.

run.py              the command: it makes a directory, a database and an environment, and then measures everything
stage/              ports and processes of a system under test, for speed/ and faults/
faults/             the fault laboratory, which `manage.py chaos` runs
speed/
  environment.py    installs the references' packages, apart from the product's
  stage.py          runs what is measured: PostgreSQL, the product's processes, the references'
  processes.py      the processor time and memory of a process and all its descendants, from /proc
  load.py           has client.py make requests
  client.py         the load generator: a separate process, so that its cost is counted apart
  inline_stack.py   reference: FastAPI, Tortoise ORM and asyncpg, which place each order before they answer
  naive/            reference: one django-q2 task for each order
  pgbench.py        reference: PostgreSQL storing single rows, and nothing else
  venue.py          a venue that costs so little that it does not limit what is measured
  seed.py           fills tables
  statements.py     how long the product's hot statements take
  session.py        one run: scenarios, repeats, progress
  scenarios/        what is measured, one module each
  report.py         the figures as a table and as JSON
  plot.py           the same as a picture
"""
