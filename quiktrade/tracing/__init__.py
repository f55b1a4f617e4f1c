"""Traces: what a request leads to, from its client to the call of a venue, through all processes that see its order.

spans.py is what the rest of the program uses. It imports nothing until `start()` finds that traces are asked for, by
OTEL_EXPORTER_OTLP_ENDPOINT, so they cost nothing where they are not. recorder.py is the part that needs OpenTelemetry.

A sampled request stores its context with its order, in the form of the header `traceparent`, and what happens to the
order meanwhile is in the same trace: its attempts and look-ups. What happens to many orders together, or much later, is
in a trace of its own with links to them: claims, the writing of outcomes, cancels, reports, webhooks.
"""
