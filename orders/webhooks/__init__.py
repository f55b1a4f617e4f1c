"""Webhooks: a client's own addresses, to which its order events are sent, signed (Standard Webhooks 1.0.0).

    fan out   each endpoint's cursor moves over its owner's events and leaves a delivery for each (rows)
    deliver   due deliveries are claimed under a lease, sent with no transaction open, and recorded (delivery)

The hot paths do nothing for it: the events are there already. An event is delivered at least once, in no certain order,
always under the same `webhook-id`.
"""
