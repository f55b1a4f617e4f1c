"""Named points at which a test has a real process die, as in a power cut: `QUIKTRADE_CRASH_AT=after_send`.

after_claim    orders are claimed, and the claim is committed; nothing is sent
after_mark     the next thing to happen is the sending of a request
after_send     the request has gone out; nothing of the reply was looked at
after_reply    the venue's reply was read; nothing is recorded
before_record  the outcomes of a batch are about to be written
"""

import os
import signal

POINTS = ("after_claim", "after_mark", "after_send", "after_reply", "before_record")
AT = os.environ.get("QUIKTRADE_CRASH_AT", "")


def point(name: str) -> None:
    """Die here if the environment names this point. In production it names none."""
    if name == AT:
        os.kill(os.getpid(), signal.SIGKILL)
