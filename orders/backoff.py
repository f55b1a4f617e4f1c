"""How long to wait after an attempt that did not reach the venue."""

import random
from collections.abc import Callable


def backoff_seconds(
    failures: int,
    *,
    base: float,
    cap: float,
    uniform: Callable[[float, float], float] = random.uniform,
) -> float:
    """Exponential with full jitter: uniform over [0, min(cap, base · 2^(failures-1))], failures ≥ 1.

    Full jitter spreads the orders that failed together over the whole interval, so that a venue coming back
    is not met by all of them at once.
    """
    ceiling = min(cap, base * 2.0 ** min(failures - 1, 64))
    return uniform(0.0, ceiling)
