"""What can go wrong at the exchange with orders that have traded, or ended: a late fill, a bust, a correction.

    late_fill    an order that ended with something left is filled after all, for some of it
    bust         a fill never was
    correction   a fill was of another quantity or price

A bust or a correction is of one execution, and so of one order: its counterparty's stays as it is. What an execution
loses works again if its order still works, in its place. If the order was filled it does not work again: what it has
left is canceled.
"""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime

from exchanges.simulator.book import CANCELED, EXPIRED, FILL
from exchanges.simulator.exchange import Exchange
from exchanges.simulator.faults import END, EXECUTION, Fault, Faults
from exchanges.simulator.journal import JournalError
from exchanges.simulator.report_log import Record
from exchanges.simulator.validation import Refusal


class Mishaps:
    """Draws for every fill and every end of an order whether a fault strikes it. `lost_memory` as of `OrderPort`."""

    def __init__(self, exchange: Exchange, faults: Faults, lost_memory: Callable[[JournalError], None]) -> None:
        self._exchange = exchange
        self._faults = faults
        self._lost_memory = lost_memory
        exchange.watchers.append(self._watch)

    def _watch(self, reports: list[Record]) -> None:
        if not self._faults:
            return
        for report in reports:
            if report["kind"] in (CANCELED, EXPIRED) and report["order_quantity"] > report["cumulative_quantity"]:
                for fault in self._faults.draw(END).values():
                    self._later(fault, self._fill, report)
            if report["kind"] == FILL:
                for fault in self._faults.draw(EXECUTION).values():
                    self._later(fault, self._bust if fault.name == "bust" else self._correct, report)

    def _later(self, fault: Fault, happens: Callable[[Fault, Record], None], report: Record) -> None:
        asyncio.get_running_loop().call_later(fault.duration(), self._happens, happens, fault, report)

    def _happens(self, happens: Callable[[Fault, Record], None], fault: Fault, report: Record) -> None:
        try:
            happens(fault, report)
        except Refusal:  # the other fault has struck this execution meanwhile
            pass
        except JournalError as error:
            self._lost_memory(error)

    def _fill(self, fault: Fault, report: Record) -> None:
        left = report["order_quantity"] - report["cumulative_quantity"]
        self._exchange.fill_late(report["venue_order_id"], fault.dice.randint(1, left), datetime.now(UTC))

    def _bust(self, fault: Fault, report: Record) -> None:
        self._exchange.bust(report["execution_id"], datetime.now(UTC))

    def _correct(self, fault: Fault, report: Record) -> None:
        quantity = fault.dice.randint(1, report["quantity"])
        self._exchange.correct(report["execution_id"], quantity, None, datetime.now(UTC))
