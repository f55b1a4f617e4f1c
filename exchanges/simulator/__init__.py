"""The simulated exchange: a process of its own that speaks HTTP and JSON, remembers, and fails on demand.

    validation.py   what an order must look like
    ledger.py       the orders it has, by their ids and their sequence
    journal.py      the same on disk, whole
    exchange.py     what it does with a valid order: its rules
    faults.py       what can be made to go wrong
    gate.py         the listening socket, open or refusing
    order_port.py   POST /orders, GET /orders/{client_order_id}, and the faults upon them
    replies.py      answers, whole and broken
    reads.py        GET /orders, /stats, /health
    admin_port.py   /admin/faults, and the reads again, on a port that no fault touches
    options.py      the command line
    process.py      start, listen, stop

What it promises its members (an adapter relies on this page, as on any venue's):

POST /orders takes `client_order_id`, `instrument`, `side`, `type`, `quantity`, `limit_price`, `stop_price`,
`time_in_force`, `expires_at`, `valid_until`; prices are decimal strings, times are ISO 8601 with an offset,
what does not apply is null or left out, what is not listed is refused. It answers

    201  {"client_order_id", "venue_order_id", "status": "working"}: the order is in the journal and works
    400, 413, 415, 422  {"code", "text"}: refused, for good; of `instrument_not_tradable`,
         `quantity_above_maximum` and `trading_halted` it keeps a record under the id, of the others none;
         `malformed_request`, `invalid_field` and `quantity_above_maximum` are for what the order says, so that any
         copy of it is refused likewise, whenever it comes
    409  code `duplicate_client_order_id`: this id was received before, working or refused; look it up
    422  code `stale_request` (where valid_until is enforced): this request came too late and is void
    429  code `rate_limited`, with Retry-After: this request was discarded unread, and so will be what comes sooner
    401, 403  your credentials are not valid, whatever you ask for: this request was discarded unread
    5xx, or no reply: nothing is promised; look it up. A 503 may say with Retry-After for how long

GET /orders/{client_order_id} answers for the order last received under the id: 200 with {"client_order_id",
"venue_order_id", "status": "working" or "rejected", "code", "text"}, or 404 with code `unknown_order`; the 404
of a path that does not exist is `no_such_path`.

An order is in the journal before anything is said about it, so no SIGKILL loses an order once answered for.
"""
