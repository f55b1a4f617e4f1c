"""The command line of `manage.py run_exchange` and `python -m exchanges.simulator`."""

import argparse
import os
import re
from dataclasses import dataclass
from datetime import time
from pathlib import Path
from typing import Any

from exchanges.simulator.exchange import Rules
from exchanges.simulator.faults import KINDS, FaultError, Faults

DESCRIPTION = "Run the simulated exchange: a venue to trade against, with faults on demand."

_KINDS = "\n".join(
    f"  {name:20}{kind.help}" + (f"  [{', '.join(kind.parameters)}]" if kind.parameters else "")
    for name, kind in KINDS.items()
)

EPILOG = f"""\
faults (what happens to a request, to the stream of reports, to an order, or to the socket):
{_KINDS}

  parameters are numbers, SHORTEST-LONGEST for seconds, true or false. All but refuse also take
  probability=0..1, count=N (strike N requests, then no more) and, those of requests, on=place|find|both:
  what strikes an order that is placed strikes a cancel and a replacement too.

examples:
  run_exchange --latency 0.05-0.5
  run_exchange --fault http_5xx:probability=0.3,on=place --fault accept_then_drop:count=1 --seed 7
  run_exchange --reject-instrument US5949181045 --max-quantity 10000

while it runs, on the admin port:
  curl -X PUT    http://127.0.0.1:8766/admin/faults -d '{{"refuse": true}}'
  curl -X PUT    http://127.0.0.1:8766/admin/faults -d '{{"latency": {{"seconds": [0.05, 0.5]}}}}'
  curl -X DELETE http://127.0.0.1:8766/admin/faults
  curl -X POST   http://127.0.0.1:8766/admin/bust -d '{{"execution_id": "5f0c1e-e12"}}'
  curl           http://127.0.0.1:8766/stats
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    host: str
    port: int
    admin_port: int
    journal: Path
    fsync: bool
    rules: Rules
    faults: Faults
    matching: bool
    liquidity: float
    closes_at: time | None


def default_journal() -> Path:
    """Where QuikTrade keeps its files. Not asked of the settings: the exchange runs without Django too."""
    data = os.environ.get("QUIKTRADE_DATA")
    base = Path(data) if data else Path(__file__).resolve().parents[2] / ".data"
    return base / "exchange" / "journal.jsonl"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "--host",
        default="127.0.0.1",
        metavar="ADDRESS",
        help="address to listen on, for both ports (%(default)s)",
    )
    add(
        "--port",
        type=_port,
        default=8765,
        metavar="PORT",
        help="port for orders; 0 takes a free one (%(default)s)",
    )
    add(
        "--admin-port",
        type=_port,
        metavar="PORT",
        help="port for faults and reads (the order port + 1; 0 if that is 0)",
    )
    add("--journal", type=Path, metavar="PATH", help="its memory (exchange/journal.jsonl in QUIKTRADE_DATA)")
    add("--fsync", action="store_true", help="wait for the disk before each reply: outlives a power cut too")
    add(
        "--reject-instrument",
        action="append",
        default=[],
        metavar="ISIN",
        help="refuse orders for it as not tradable; may be repeated",
    )
    add("--max-quantity", type=_positive, metavar="N", help="refuse orders for more")
    add("--no-matching", action="store_true", help="without a market: every order works for ever")
    add(
        "--liquidity",
        type=_share,
        default=0.0,
        metavar="SHARE",
        help="a second member trades with this part of the orders, 0 to 1 (%(default)g)",
    )
    add("--close", type=_time_of_day, metavar="HH:MM", help="end the day at this time, UTC (it never ends)")
    add("--latency", metavar="SECONDS", help="every reply takes this long: 0.5, or 0.1-0.5 for a random time")
    add(
        "--fault",
        action="append",
        default=[],
        metavar="NAME[:KEY=VALUE,...]",
        help="set a fault from the start; may be repeated",
    )
    add("--seed", type=int, metavar="N", help="for the dice of the faults (random; GET /stats shows it)")


def read_options(arguments: argparse.Namespace) -> Options:
    """Raises: ValueError, with a sentence about the option that is wrong."""
    if arguments.no_matching and (arguments.liquidity or arguments.close):
        raise ValueError("--no-matching: without a market there is no --liquidity and no --close")
    admin_port = arguments.admin_port
    if admin_port is None:
        admin_port = arguments.port and arguments.port + 1
    if admin_port > 65535 or (arguments.port and admin_port == arguments.port):
        raise ValueError("--admin-port: must be another port than --port, up to 65535")
    faults = Faults() if arguments.seed is None else Faults(seed=arguments.seed)
    settings = dict(_fault(text) for text in arguments.fault)
    if arguments.latency is not None:
        settings["latency"] = {"seconds": _value(arguments.latency)}
    try:
        faults.replace(settings)
    except FaultError as error:
        raise ValueError(f"--fault: {error}") from error
    return Options(
        host=arguments.host,
        port=arguments.port,
        admin_port=admin_port,
        journal=(arguments.journal or default_journal()).absolute(),
        fsync=arguments.fsync,
        rules=Rules(untradable_instruments=frozenset(arguments.reject_instrument), max_quantity=arguments.max_quantity),
        faults=faults,
        matching=not arguments.no_matching,
        liquidity=arguments.liquidity,
        closes_at=arguments.close,
    )


def _port(text: str) -> int:
    port = int(text)
    if not 0 <= port <= 65535:
        raise argparse.ArgumentTypeError("must be from 0 to 65535")
    return port


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be above zero")
    return number


def _share(text: str) -> float:
    share = float(text)
    if not 0 <= share <= 1:
        raise argparse.ArgumentTypeError("must be from 0 to 1")
    return share


def _time_of_day(text: str) -> time:
    if not re.fullmatch(r"([01]\d|2[0-3]):[0-5]\d", text, re.ASCII):
        raise argparse.ArgumentTypeError("must be HH:MM, from 00:00 to 23:59")
    return time.fromisoformat(text)


def _fault(text: str) -> tuple[str, Any]:
    name, _, parameters = text.partition(":")
    settings: dict[str, Any] = {}
    for pair in parameters.split(",") if parameters else ():
        key, equals, value = pair.partition("=")
        if not equals:
            raise ValueError(f"--fault {name}: {pair!r} is not KEY=VALUE")
        settings[key] = _value(value)
    return name, settings


def _value(text: str) -> Any:
    """JSON's numbers and words, SHORTEST-LONGEST, or a word as it is; the fault says whether it will do."""
    words: dict[str, Any] = {"true": True, "false": False}
    if text in words:
        return words[text]
    if re.fullmatch(r"\d+", text, re.ASCII):
        return int(text)
    numbers = re.fullmatch(r"(\d*\.?\d+)(?:-(\d*\.?\d+))?", text, re.ASCII)
    if numbers is None:
        return text
    shortest, longest = numbers.groups()
    return float(shortest) if longest is None else [float(shortest), float(longest)]
