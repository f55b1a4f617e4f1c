"""9: three times as many orders as can be accepted. Those that are admitted must be answered soon, and none be lost.

The sustainable rate is that of 32 connections that never pause. A light load is a quarter of it, sent at that rate. The
first second of the flood is not measured: until the processes have measured the load, they admit too many requests.
"""

from dataclasses import dataclass
from typing import Any

from benchmarks.speed.load import Answers
from benchmarks.speed.session import SINGLE, Session

LIGHT_SHARE = 0.25
EXCESS = 3.0
CONNECTIONS = 512
_ALLOWED = (201, 429, 503)

_LOST = """
SELECT count(*) FROM unnest(%s::text[]) AS told (client_order_id)
WHERE NOT EXISTS (SELECT 1 FROM orders_order o WHERE o.client_order_id = told.client_order_id)
"""


@dataclass(frozen=True, slots=True)
class Flood:
    answers: Answers
    lost: int
    """How many orders were answered 201 and are not in the database."""


def measure(session: Session) -> None:
    stage = session.stage
    with stage.web() as web:
        headers = stage.headers(web)

        def sustainable(seconds: float) -> Answers:
            return session.load(web, SINGLE, headers=headers, seconds=seconds)

        session.say("what can be sustained")
        sustainable(2.0)
        rate = sustainable(session.options.seconds).rate

        def light(seconds: float) -> Answers:
            return session.load(
                web, SINGLE, headers=headers, seconds=seconds, rate=LIGHT_SHARE * rate, connections=32
            )  # fmt: skip

        def flood(seconds: float) -> Flood:
            record, prefix = stage.directory / "flood.txt", session.prefix()
            answers = session.load(
                web, SINGLE, headers=headers, seconds=seconds, rate=EXCESS * rate, connections=CONNECTIONS,
                warm_up=1.0, allowed=_ALLOWED, record=str(record), prefix=prefix, patience=30.0,
            )  # fmt: skip
            lines = (line.split() for line in record.read_text().splitlines())
            told = [f"{prefix}-{number}" for number, status, *_ in lines if status == "201"]
            (lost,) = stage.ask(_LOST, [told])
            return Flood(answers, lost)

        found: dict[str, list[Any]] = session.interleave(
            {"a quarter of it": light, "three times as much": flood, "all of it": sustainable}
        )
    floods: list[Flood] = found["three times as much"]
    lights: list[Answers] = found["a quarter of it"]
    session.measure(
        "p99 of the admitted, 3 × what is sustainable", "ms",
        [flood.answers.latency["p99"] for flood in floods],
        against="a quarter of it", reference=[answers.latency["p99"] for answers in lights], target=4.0, at_most=True,
    )  # fmt: skip
    full: list[Answers] = found["all of it"]
    session.measure(
        "p99 of the admitted, 3 × what is sustainable", "ms",
        [flood.answers.latency["p99"] for flood in floods],
        against="32 connections that never rest", reference=[answers.latency["p99"] for answers in full],
    )  # fmt: skip
    session.measure(
        "admitted, 3 × what is sustainable", "orders/s", [flood.answers.good_rate for flood in floods],
        against="what is sustainable", reference=[answers.rate for answers in full],
    )  # fmt: skip
    session.measure("admitted and lost", "orders", [float(flood.lost) for flood in floods], target=0.0, at_most=True)
    last = floods[-1].answers
    session.note(
        f"at {EXCESS * rate:,.0f} orders/s, by status: {last.statuses}, {last.raw['unanswered']} without an answer, "
        f"{last.raw['reconnects']} connections closed by the server"
    )
