"""The job cluster: django-q2 with a broker on PostgreSQL, a process tree that fails as a whole, and a watchdog.

run_worker (watchdog)
 └ qcluster (sentinel) ┬ pusher    asks the broker, fills the local queue
                       ├ workers   run the jobs
                       └ monitor   acknowledges
"""
