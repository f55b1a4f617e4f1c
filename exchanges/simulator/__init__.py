"""The simulated exchange: a process of its own that speaks HTTP and JSON, remembers, and fails on demand.

    validation.py   what an order, a cancel and a replacement must look like
    book.py         matching in one instrument, pure
    market.py       a book for each instrument, and the reports on what happens to orders
    ledger.py       the orders it has, by their ids and their sequence
    report_log.py   the reports, by their number
    journal.py      all of it on disk, whole
    exchange.py     what it does with a valid request: its rules
    faults.py       what can be made to go wrong
    mishaps.py      what can go wrong with what has traded: late fills, busts, corrections
    liquidity.py    a second member, so that orders are filled
    gate.py         the listening socket, open or refusing
    order_port.py   POST /orders, to cancel and to replace, GET /orders/{client_order_id}, and the faults upon them
    replies.py      answers, whole and broken
    stream.py       the reports over WebSocket, as they happen
    reads.py        GET /orders, /reports, /executions, /stats, /health
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

POST /orders/{client_order_id}/cancel takes `request_id` and `valid_until`; POST /orders/{client_order_id}/replace also
any of `quantity` (the total, with what is filled), `limit_price`, `stop_price`, `time_in_force` (day, gtc, gtd) and
`expires_at`; what is left out stays as it is. They are about the order last received under the id, and answer

    200  {"request_id", "client_order_id", "venue_order_id", "status", "order_quantity", "cumulative_quantity",
         "leaves_quantity"}: it is done, and the order stands like this after it
    202  {"request_id", "client_order_id"}: received, and nothing is promised
    409  code `too_late`: the order works no more
    409  code `duplicate_request_id`: this id was received before, with another request
    404  code `unknown_order`; 422 code `no_market` where the exchange runs without one
    400, 413, 415, 422, 429, 401, 403, 5xx, or no reply: as for orders

A request that was done or refused for what the order is has one answer for ever: whoever repeats it under its id gets
that answer again, and nothing happens. A replaced order keeps its place in the queue only for less at the same prices,
and never gets less than what is filled. GET /orders/{client_order_id}/state answers how the order stands now.

Each change of an order is a report (market.py says what is in it). Reports are numbered from 1 without a gap, in a
stream that has the name of the journal: a new journal is another stream. GET /reports?after=N and /executions?after=N
give them by pages, {"stream", "reports", "last", "next"}, and over WebSocket they come as they happen (stream.py).
GET /orders?open=1 gives the orders that work, as they stand.

An order is in the journal before anything is said about it, so no SIGKILL loses an order once answered for.
"""
