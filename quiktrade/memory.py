"""The garbage collector, as long-lived processes want it."""

import gc


def settle() -> None:
    """Have it leave alone what is there by now, which stays, and look less often at the rest.

    Processes that are forked afterwards go on sharing that memory: the collector would write into all of it.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)
