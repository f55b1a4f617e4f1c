"""Settings of the garbage collector for long-lived processes."""

import gc


def settle() -> None:
    """Make the collector ignore all present objects, which stay, and examine the others less often.

    Processes that are forked afterwards share that memory, into which the collector would otherwise write.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)
