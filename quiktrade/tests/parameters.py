"""Which of many like cases a test has by default."""

from collections.abc import Iterable
from typing import Any

import pytest


def mostly_exhaustive(values: Iterable[Any], *by_default: Any) -> list[Any]:
    """All values, to be tested by `manage.py test -m exhaustive`, and those `by_default` in every run."""
    return [each if each in by_default else pytest.param(each, marks=pytest.mark.exhaustive) for each in values]
