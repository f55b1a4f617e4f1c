from collections.abc import Iterator

import pytest

from exchanges.tests.running import RunningExchange, running_exchange


@pytest.fixture(scope="module")
def shared_exchange(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningExchange]:
    arguments = ("--seed", "7", "--reject-instrument", "US5949181045", "--max-quantity", "10000")
    with running_exchange(tmp_path_factory.mktemp("exchange"), *arguments) as running:
        yield running


@pytest.fixture
def exchange(shared_exchange: RunningExchange) -> RunningExchange:
    """A running exchange without faults. The tests of a module share its ledger, so each needs its own ids."""
    shared_exchange.set_faults()
    return shared_exchange
