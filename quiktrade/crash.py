"""Named points at which a test has a real process die, as in a power cut: `QUIKTRADE_CRASH_AT=after_send`.

after_claim    orders are claimed, and the claim is committed; nothing is sent
after_mark     the next thing to happen is the sending of a request
after_send     the request has gone out; nothing of the reply was looked at
after_reply    the venue's reply was read; nothing is recorded
before_record  the outcomes of a batch are about to be written
after_record   they are written, and that is committed
after_look_up  a venue was asked about a request without an answer; nothing of what it said is recorded
"""

import os
import signal

POINTS = ("after_claim", "after_mark", "after_send", "after_reply", "before_record")
"""Of an attempt: a process that dies at one of them leaves what it has claimed until the lease runs out."""
AFTER_RECORD, AFTER_LOOK_UP = "after_record", "after_look_up"
AT = os.environ.get("QUIKTRADE_CRASH_AT", "")


def point(name: str) -> None:
    """Die here if the environment names this point. In production it names none."""
    if name == AT:
        os.kill(os.getpid(), signal.SIGKILL)
