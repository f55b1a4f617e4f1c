"""An order's life as a picture: its steps from top to bottom, and beside them how much of it is executed.

The picture is SVG without a script, in lengths that fit a telephone and a wide screen: a step is a row of fixed height,
and a bar is as long as a share of the page. It is made of the events that the page's table shows, without a query.
Steps of one kind that follow one another are drawn as one where there are too many, and the table has each of them.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from itertools import groupby
from typing import Any

from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

from orders.facts import average_price, leaves_quantity
from orders.lifecycle import Event
from orders.models import Order, OrderEvent, Status
from quiktrade.console.pages import who
from quiktrade.console.times import span
from quiktrade.decimals import decimal_text

MOST_ROWS = 24
LONGEST_NOTE = 64
TOP, ROW, ROW_WITH_BAR = 16, 38, 44
"""Pixels: where the first row is written, and how high a row is."""
TIME, RAIL = -116, -20
"""Pixels: where the times and the line are. console.css leaves a margin for them, left of the words and bars, so that
the length of a bar is a share of what remains."""

OUTCOMES = {
    Event.ACKNOWLEDGED: ("acknowledged", "good"),
    Event.REJECTED_BY_VENUE: ("rejected", "bad"),
    Event.NOT_SENT: ("not sent", "bad"),
    Event.VENUE_UNREACHABLE: ("venue not reached", "bad"),
    Event.TURNED_AWAY: ("turned away", "bad"),
    Event.OUTCOME_UNKNOWN: ("no answer", "warn"),
}
WORDS = {
    Event.ACCEPTED: ("Accepted", "plain"),
    Event.ACKNOWLEDGED: ("Found at the venue", "good"),
    Event.REJECTED_BY_VENUE: ("Rejected by the venue", "bad"),
    Event.NOT_FOUND: ("Not found at the venue", "warn"),
    Event.ATTEMPTS_EXHAUSTED: ("Attempts exhausted", "bad"),
    Event.CANCEL_REQUESTED: ("Canceled here", "plain"),
    Event.PLACE_BY_PASSED: ("Its place-by time passed", "bad"),
    Event.CANCEL_ASKED: ("Cancel asked for", "plain"),
    Event.REPLACE_ASKED: ("Replace asked for", "plain"),
    Event.CANCELED_AT_VENUE: ("Canceled at the venue", "plain"),
    Event.EXPIRED_AT_VENUE: ("Expired at the venue", "plain"),
    Event.DONE_FOR_DAY_AT_VENUE: ("Done for the day", "plain"),
    Event.CANCEL_REFUSED: ("Cancel refused", "bad"),
    Event.REPLACE_REFUSED: ("Replace refused", "bad"),
    Event.REPLACED: ("Replaced", "good"),
    Event.RESTATED: ("Restated by the venue", "plain"),
}
EXECUTED = {
    Event.EXECUTED: ("Executed {1}", "fill"),
    Event.EXECUTION_BUSTED: ("{0} taken back", "bad"),
    Event.EXECUTION_CORRECTED: ("{0} corrected to {1}", "warn"),
}
ENDINGS = {
    Status.FILLED: "good",
    Status.PLACED: "good",
    Status.PARTIALLY_FILLED: "good",
    Status.REJECTED: "bad",
    Status.FAILED: "bad",
    Status.UNCONFIRMED: "warn",
}


@dataclass(frozen=True, slots=True)
class Step:
    """A row of the picture. `look` names its colour and the shape of its mark; of steps that are `alike` many may be
    drawn as one. `before` and `filled` are the quantities executed, where the step is about those."""

    at: datetime
    text: str
    note: str
    look: str
    alike: str = ""
    filled: int | None = None
    before: int = 0
    quantity: int = 0
    of: int = 1

    @property
    def told(self) -> str:
        share = f", {self.filled:,} of {self.quantity:,} executed" if self.filled is not None else ""
        note = f" ({self.note})" if self.note else ""
        return f"{self.at.astimezone(UTC):%Y-%m-%d %H:%M:%S} {self.text}{note}{share}"


def picture(order: Order, events: Sequence[OrderEvent]) -> SafeString:
    """The order's timeline. `events` are the first ones of its history, or all."""
    steps = _fewer(_steps(order, events))
    steps.append(_present(order, steps))
    scale = max([1, *(max(step.quantity, step.filled or 0, step.before) for step in steps)])
    spoken = "; ".join(step.told for step in steps)
    rows, y, before = [], TOP, None
    for step in steps:
        rows.append((_row(step, y, before, scale),))
        last, before = y, step.at
        y += ROW if step.filled is None else ROW_WITH_BAR
    line = format_html('<line class="rail" x1="{0}" x2="{0}" y1="{1}" y2="{2}"/>', RAIL, TOP - 4, last - 4)
    return format_html(
        '<svg class="console-timeline" role="img" aria-labelledby="timeline-title timeline-text" width="100%"'
        ' height="{}" xmlns="http://www.w3.org/2000/svg"><title id="timeline-title">Timeline of the order</title>'
        '<desc id="timeline-text">{}</desc>{}{}</svg>',
        y,
        spoken,
        line,
        format_html_join("", "{}", rows),
    )


def _steps(order: Order, events: Sequence[OrderEvent]) -> list[Step]:
    quantities = [event.detail["quantity_before"] for event in events if "quantity_before" in event.detail]
    quantity, filled = (quantities or [order.quantity])[0], 0
    outcomes = {event.attempt: event for event in reversed(events) if event.event in OUTCOMES}
    steps = []
    drawn: set[int] = set()
    for event in events:
        if event.sequence in drawn:
            continue
        detail = event.detail
        if event.event == Event.CLAIMED:
            outcome = outcomes.get(event.attempt)
            drawn |= {outcome.sequence} if outcome else set()
            steps.append(_attempt(event, outcome))
        elif event.event in EXECUTED:
            word, look = EXECUTED[Event(event.event)]
            now = int(detail.get("filled_quantity", filled))
            text = word.format(_short(str(detail.get("refers_to", "")), 16), _worth(detail))
            steps.append(Step(event.at, text, "", look, event.event, filled=now, before=filled, quantity=quantity))
            filled = now
        else:
            quantity = int(detail.get("quantity", quantity))
            word, look = WORDS.get(Event(event.event), (event.event.replace("_", " ").capitalize(), "plain"))
            if "quantity_before" in detail:
                word += f": {int(detail['quantity_before']):,} → {quantity:,}"
            person = "" if event.actor.startswith(("system:", "venue:")) else f"by {who(event.actor)}"
            note = ": ".join(filter(None, (person, event.reason)))
            steps.append(Step(event.at, word, note, look, event.event))
    return steps


def _attempt(claimed: OrderEvent, outcome: OrderEvent | None) -> Step:
    if outcome is None:
        return Step(claimed.at, f"Attempt {claimed.attempt}: under way", "", "plain attempt", "attempt")
    word, look = OUTCOMES[Event(outcome.event)]
    waited = outcome.detail.get("latency_ms")
    if waited is None:
        waited = (outcome.at - claimed.at) / timedelta(milliseconds=1)
    text = f"Attempt {claimed.attempt}: {word}, {_milliseconds(float(waited))}"
    return Step(claimed.at, text, outcome.reason, f"{look} attempt", f"attempt {word}")


def _worth(detail: dict[str, Any]) -> str:
    return f"{int(detail.get('quantity', 0)):,} at {detail.get('price')}"


def _milliseconds(length: float) -> str:
    return f"{length:.0f} ms" if length < 1000 else span(timedelta(milliseconds=length))


def _present(order: Order, steps: Sequence[Step]) -> Step:
    """The last row: how the order stands."""
    look = "bad" if order.parked else ENDINGS.get(Status(order.status), "plain")
    filled = order.filled_quantity
    average = average_price(order.filled_value, filled)
    left = leaves_quantity(order)
    parts = [f"average {decimal_text(average)}"] if average is not None else []
    parts += [f"{left:,} left"] if left else []
    word = order.stands.replace("_", " ").capitalize() + (f": {filled:,} of {order.quantity:,}" if filled else "")
    shown = filled if filled or any(step.filled is not None for step in steps) else None
    return Step(
        order.updated_at, word, ", ".join(parts), f"{look} end", filled=shown, before=filled, quantity=order.quantity
    )


def _fewer(steps: list[Step]) -> list[Step]:
    """At most MOST_ROWS: neighbours that are alike become one row, and beyond that the middle is left out."""
    size = 1
    while len(steps) > MOST_ROWS and size < len(steps):
        size *= 2
        drawn = [step for run in _runs(steps) for step in _joined(run, size)]
        if len(drawn) <= MOST_ROWS or size * 2 >= len(steps):
            steps = drawn
            break
    if len(steps) > MOST_ROWS:
        first, last = steps[: MOST_ROWS // 2], steps[-(MOST_ROWS // 2) + 1 :]
        left_out = steps[len(first) : -len(last)]
        count = sum(step.of for step in left_out)
        steps = [*first, Step(left_out[0].at, f"{count:,} more steps", "in the history below", "plain"), *last]
    return steps


def _runs(steps: Iterable[Step]) -> list[list[Step]]:
    return [list(run) for _, run in groupby(steps, key=lambda step: step.alike)]


def _joined(run: list[Step], size: int) -> list[Step]:
    """A run of steps that are alike, `size` of them in a row of the picture."""
    if not run[0].alike:
        return run
    rows = []
    for start in range(0, len(run), size):
        part = run[start : start + size]
        if len(part) == 1:
            rows += part
            continue
        begin, end = (f"{each.at.astimezone(UTC):%H:%M:%S}" for each in (part[0], part[-1]))
        text = _many(part) + (f", until {end}" if end != begin else "")
        rows.append(replace(part[0], text=text, note="", filled=part[-1].filled, of=len(part)))
    return rows


def _many(part: Sequence[Step]) -> str:
    first = part[0]
    match first.alike:
        case Event.EXECUTED if first.filled is not None:
            return f"{len(part)} executions of {(part[-1].filled or 0) - first.before:,} shares"
        case Event.EXECUTION_BUSTED:
            return f"{len(part)} executions taken back"
        case Event.EXECUTION_CORRECTED:
            return f"{len(part)} executions corrected"
        case alike if alike.startswith("attempt"):
            return f"{len(part)} attempts: {alike.removeprefix('attempt ')}"
    return f"{len(part)} × {first.text}"


def _row(step: Step, y: int, before: datetime | None, scale: int) -> SafeString:
    at = step.at.astimezone(UTC)
    parts = [
        format_html("<title>{}</title>", step.told),
        format_html('<text class="time" x="{}" y="{}">{}</text>', TIME, y, f"{at:%H:%M:%S.%f}"[:-3]),
        format_html('<text class="small gap" x="{}" y="{}">{}</text>', TIME, y + 15, _gap(at, before)),
        _mark(step.look, y - 4),
        _words(step, y),
    ]
    if step.filled is not None:
        parts += [_share(step, y), *_bars(step, scale, y + 7)]
    return format_html('<g class="{}">{}</g>', step.look, format_html_join("", "{}", ((part,) for part in parts)))


def _words(step: Step, y: int) -> SafeString:
    """What the step says, cut off where the picture ends: the table has all of it."""
    low = 29 if step.filled is None else 44
    note = format_html('<text class="small" x="0" y="{}">{}</text>', low, _short(step.note, LONGEST_NOTE))
    said = format_html('<text class="said" x="0" y="14">{}</text>{}', step.text, note if step.note else "")
    return format_html('<svg x="0" y="{}" width="100%" height="48">{}</svg>', y - 14, said)


def _gap(at: datetime, before: datetime | None) -> str:
    """The day, where it is another one than that of the step before, or the time since that."""
    if before is None or before.astimezone(UTC).date() != at.date():
        return f"{at:%Y-%m-%d}"
    return f"+{_milliseconds((at - before) / timedelta(milliseconds=1))}" if at > before else ""


def _mark(look: str, y: int) -> SafeString:
    if look.endswith("attempt"):
        return format_html('<rect class="mark" x="{}" y="{}" width="10" height="10" rx="2"/>', RAIL - 5, y - 5)
    if look.endswith("end"):
        ring = format_html('<circle class="ring" cx="{}" cy="{}" r="8"/>', RAIL, y)
        return format_html('{}<circle class="mark" cx="{}" cy="{}" r="4"/>', ring, RAIL, y)
    return format_html('<circle class="mark" cx="{}" cy="{}" r="5"/>', RAIL, y)


def _share(step: Step, y: int) -> SafeString:
    quantity, filled = step.quantity, step.filled or 0
    exact = f"{filled:,}/{quantity:,}"
    text = exact if len(exact) <= 9 else f"{filled * 100 // quantity if quantity else 0} %"
    return format_html('<text class="share" x="100%" y="{}">{}</text>', y, text)


def _bars(step: Step, scale: int, y: int) -> list[SafeString]:
    """The order's quantity, what of it was executed before, and what this step added or took away."""
    filled = step.filled or 0
    kept, lost, more = min(filled, step.before), max(0, step.before - filled), max(0, filled - step.before)
    bars = [("track", 0, step.quantity), ("kept", 0, kept), ("lost", kept, lost), ("more", kept, more)]
    bar = '<rect class="{}" x="{}%" y="{}" width="{}%" height="9"/>'
    return [
        format_html(bar, look, _percent(start, scale), y, _percent(length, scale))
        for look, start, length in bars
        if length > 0
    ]


def _percent(part: int, whole: int) -> str:
    """To a hundredth, in whole numbers: an order may be larger than what a float counts."""
    hundredths = part * 10_000 // whole
    return f"{hundredths // 100}.{hundredths % 100:02}"


def _short(text: str, longest: int) -> str:
    return text if len(text) <= longest else f"{text[: longest - 1]}…"
