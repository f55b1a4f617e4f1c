"""Alerts: incidents, and the people who are told of them, without Prometheus.

    judge   what is wrong now, asked by whoever has the turn: a thread of a web process, or a job (watch, incidents)
    tell    each channel once when an incident opens and once when it is over (notices, sending)

An incident opens after two bad looks and ends after three good ones. Settings name the functions that look
(`ALERT_JUDGES`) and the channels (`ALERTS`). A database that is away cannot say so in rows: each web process tells of
that by itself (watch).
"""
