"""Numbers for Prometheus: what happened, counted by the processes, and how things stand, read from the rows.

    place      the folder that the processes of one machine share, and the files of each in it
    counting   counters and histograms; `http` and others have those of this wing
    gauges     what is read from rows when somebody asks
    listener   answers `GET /metrics` at an address of its own, never at the API's

All of it is off unless QUIKTRADE_METRICS_PORT is set. Then numbers are counted in this process's memory and shown to
nobody.
"""
