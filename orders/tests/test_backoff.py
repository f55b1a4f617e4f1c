import pytest

from orders.verdicts import backoff_seconds


@pytest.mark.parametrize(
    ("failures", "ceiling"),
    [(1, 0.5), (2, 1.0), (3, 2.0), (4, 4.0), (7, 32.0), (8, 60.0), (9, 60.0), (1000, 60.0)],
)
def test_the_wait_is_drawn_from_zero_to_a_doubling_and_bounded_ceiling(failures: int, ceiling: float) -> None:
    drawn = []

    def uniform(low: float, high: float) -> float:
        drawn.append((low, high))
        return high

    assert backoff_seconds(failures, base=0.5, cap=60.0, uniform=uniform) == ceiling
    assert drawn == [(0.0, ceiling)]
