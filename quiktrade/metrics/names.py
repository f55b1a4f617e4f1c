"""The metrics of this wing. Those of orders and venues are in `orders.metrics`."""

from quiktrade.metrics.counting import LONG_SECONDS, counter, gauge, histogram

HTTP_REQUEST_SECONDS = histogram(
    "http_request_seconds",
    "Requests by route, method and outcome (2xx, 3xx, 4xx, 429, 5xx), from the first middleware to the head of the "
    "answer. Probes and refusals for overload are not among them.",
    "route",
    "method",
    "outcome",
)
WEB_SHED = counter("web_shed", "Requests refused because the process had enough in hand.")
WEB_SHED_OF_CLIENT = counter("web_shed_of_client", "Requests refused because their client had enough in hand.")
WEB_IN_HAND = gauge("web_in_hand", "Requests being served, as of the last second.")
WEB_ROOM = gauge("web_room", "Requests that are served at the same time at most, as of the last second.")
DATABASE_TROUBLE = counter(
    "database_trouble",
    "Times that the database was away or refused to work, by who noticed (web, placement, broker, heartbeat, session, "
    "alerts).",
    "where",
)
LOGINS = counter("logins", "Requests for tokens by name and password (ok, wrong, throttled, other).", "result")
REFRESHES = counter("refreshes", "Requests for tokens by refresh token (ok, wrong, throttled, other).", "result")
JOB_SECONDS = histogram("job_seconds", "Jobs by name, and whether they ended well.", "job", "ok", buckets=LONG_SECONDS)
CLUSTER_STARTS = counter("cluster_starts", "Starts of the job cluster: more than one means that one was replaced.")
