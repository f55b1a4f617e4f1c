#!/usr/bin/env python3
"""Check placement.pml and requests.pml: the protocols hold, and break when any one safeguard is taken away.

    python3 docs/model/check.py                all variants
    python3 docs/model/check.py --quick        a fault less, where that is enough: for CI
    python3 docs/model/check.py --story NAME   tell the shortest history that breaks (or reaches) a variant, and name
                                               the property that it breaks (README.md explains these)

Needs Spin (Debian package `spin`) and a C compiler (`gcc`). Exit code: 0 all as expected, 1 not, 2 usage or
a missing program.
"""

# ruff: noqa: T201, E501  (a program for people: it prints; and a table of one row a line)

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

PLACEMENT = Path(__file__).with_name("placement.pml")
REQUESTS = Path(__file__).with_name("requests.pml")
MEMORY_MB = 2000
"""The limit for one variant; the largest needs a fifth of it. Running out of it is reported, not taken for a proof."""
SECONDS = 600

CLASSES = {
    "A": "REFUSES_DUPLICATES",
    "B": "REFUSES_RECENT_DUPLICATES",
    "C": "REFUSES_STALE_REQUESTS",
    "D": "NOTHING",
}
PROPERTIES = {
    PLACEMENT: {"I1": 1, "I2": 2, "I3": 3, "I4": 4, "evidence": 5},
    REQUESTS: {"believed": 1, "at rest": 2, "shown live": 3, "202": 4, "once": 5, "built on": 6},
}
HOLDS, REACHED = "holds", "reached"


@dataclass(frozen=True)
class Variant:
    """A class of venue and switches of the model, and the result that is expected.

    `world` is what is assumed, and `broken` the one safeguard that is taken away. `expected` is HOLDS, REACHED, or the
    property that must break. `scope` leaves events out that a history does not need, `quick_scope` some that only the
    full run takes time for. `faults` is for the full run, `quick_faults` for the quick one.
    """

    name: str
    shows: str
    venue: str
    world: str = ""
    broken: str = ""
    expected: str = HOLDS
    faults: int = 3
    quick_faults: int = 2
    reach: str = ""
    model: Path = PLACEMENT
    scope: str = ""
    quick_scope: str = ""

    def switches(self, quick: bool) -> list[str]:
        """The lines that turn the model into this variant."""
        flags = [
            f"VENUE {CLASSES[self.venue]}",
            f"FAULTS {min(self.faults, self.quick_faults) if quick else self.faults}",
        ]
        flags += [*self.world.split(), *self.broken.split(), *self.scope.split()]
        flags += self.quick_scope.split() if quick else []
        if self.expected in PROPERTIES[self.model]:
            flags.append(f"ONLY {PROPERTIES[self.model][self.expected]}")
        if self.reach:
            flags.append(f"REACH {self.reach}")
        return [f"#define {flag}" for flag in flags]


@dataclass(frozen=True)
class Finding:
    got: str
    states: int = 0
    seconds: float = 0.0


def holds(name: str, shows: str, venue: str, world: str = "", *, faults: int = 3) -> Variant:
    return Variant(name, shows, venue, world, faults=faults)


def breaks(expected: str, name: str, shows: str, venue: str, broken: str, world: str = "") -> Variant:
    """One safeguard less than in a variant of the same venue and world that holds."""
    return Variant(name, shows, venue, world, broken, expected)


def reaches(name: str, shows: str, venue: str, condition: str, world: str = "") -> Variant:
    """What must be possible: a model in which nothing happens holds, too."""
    return Variant(name, shows, venue, world, expected=REACHED, reach=condition)


def request_holds(name: str, shows: str, venue: str, world: str = "", *, quick_scope: str = "ONE_REPLACE") -> Variant:
    return Variant(name, shows, venue, world, faults=2, quick_faults=1, model=REQUESTS, quick_scope=quick_scope)


def request_breaks(
    expected: str, name: str, shows: str, venue: str, broken: str, world: str = "", *, scope: str = "", faults: int = 2
) -> Variant:
    return Variant(name, shows, venue, world, broken, expected, faults=faults, model=REQUESTS, scope=scope)


def request_reaches(
    name: str, shows: str, venue: str, condition: str, world: str = "", *, scope: str = "", faults: int = 2
) -> Variant:
    return Variant(
        name, shows, venue, world, expected=REACHED, faults=faults, reach=condition, model=REQUESTS, scope=scope
    )


ONE = "ONE_REPLACE"
REPLACES = "NO_CANCEL NO_FILLS NO_CLOSE"
PAIR = "ONE_REPLACE NO_FILLS NO_CLOSE"
CANCELS = "NO_REPLACE NO_FILLS NO_CLOSE"

TODAY = "PUNCTUAL IGNORE_DOUBT"  # the code trusts the settle time, and so keeps no doubt after it

PLACING = [
    # ---- the protocol, by class of venue ----
    holds("A, punctual", "as the code is: requests end within the settle time", "A", TODAY),
    holds("A", "late requests, frozen workers; nothing final in doubt", "A"),
    holds("A, forgets rejections", "a rejection in doubt is parked, not believed", "A", "FORGETS_REJECTIONS"),
    holds("A, forgets, by content", "or believed: any copy of it is refused", "A", "FORGETS_REJECTIONS BY_CONTENT"),
    holds("A, doubled requests", "something on the way sends a request twice", "A", "DUPLICATES"),
    holds("B, punctual", "window checked at the look-up and at the claim", "B", TODAY),
    holds("B", "anything late, but not later than the window", "B"),
    holds("C", "the stamp makes late requests void", "C"),
    holds("D", "only what is proved not sent is sent again", "D", faults=4),
    holds("D, punctual, re-sent", "would be safe if the settle time were a law", "D", "PUNCTUAL RESEND"),
    holds("A, late not_sent", "proposed: unconfirmed, not_sent -> pending", "A", "LATE_NOT_SENT"),
    holds("C, late not_sent", "likewise", "C", "LATE_NOT_SENT"),
    holds("D, late not_sent", "likewise: nothing to park where nothing was sent", "D", "LATE_NOT_SENT"),
    # ---- one safeguard less ----
    breaks("I1", "no mark before send", "the request leaves before the claim is written", "D", "NO_MARK"),
    breaks("I1", "C, no attempt fence", "a late negative answer ends a newer attempt", "C", "NO_FENCE"),
    breaks("I3", "A, no attempt fence", "likewise: canceled with a request under way", "A", "NO_FENCE", TODAY),
    breaks("I3", "duplicate is rejected", "it means that an earlier attempt arrived", "A", "DUPLICATE_IS_REJECTED"),
    breaks("I3", "A, timeout is not sent", "failed or canceled, and live", "A", "TIMEOUT_IS_NOT_SENT"),
    breaks("I1", "D, timeout is not sent", "sent again, and both arrive", "D", "TIMEOUT_IS_NOT_SENT"),
    breaks("I1", "D, no settle time", "not found while on the wire, sent again", "D", "NO_SETTLE", "PUNCTUAL RESEND"),
    breaks("I3", "A, no settle time", "likewise, then canceled, then it arrives", "A", "NO_SETTLE", TODAY),
    breaks("I1", "C, stamp set at send", "a frozen worker's request looks fresh", "C", "STAMP_AT_SEND"),
    breaks("I1", "C, early release", "sent again before valid_until", "C", "EARLY_RELEASE"),
    breaks("I1", "B, re-sent after window", "the venue has forgotten the first one", "B", "RESEND"),
    breaks("I1", "B, margin too short", "claimed within the window, sent after it", "B", "SHORT_MARGIN"),
    breaks("I1", "D, unknown re-sent", "no settle time is long enough", "D", "RESEND"),
    breaks("I1", "A, fresh id", "each attempt under an id of its own", "A", "FRESH_ID"),
    breaks("I3", "A, rejection believed", "though in doubt", "A", "BELIEVE_REJECTION", "FORGETS_REJECTIONS"),
    breaks("I3", "A, doubt ignored", "as the code is: canceled, then a late one arrives", "A", "IGNORE_DOUBT"),
    breaks("I2", "A, doubt ignored: at rest", "likewise, and its answer is lost: it stays so", "A", "IGNORE_DOUBT"),
    breaks("evidence", "late answer dropped", "no edges from pending or final ones", "A", "DROP_LATE_ACKNOWLEDGEMENT"),
    breaks("I1", "requeue of unconfirmed", "a second request beside the first", "D", "REQUEUE_UNCONFIRMED"),
    breaks("I1", "hasty operator, requeue", "not placed, requeued, then it arrives", "D", "HASTY_OPERATOR"),
    breaks("I3", "hasty operator", "marked not placed, then it arrives", "D", "HASTY_OPERATOR"),
    breaks("I4", "answer before commit", "201 for an order that is not stored", "A", "ANSWER_BEFORE_COMMIT"),
    # ---- what no rule of ours can mend: an adapter must put each call on the wire once ----
    breaks("I1", "C, doubled requests", "both within valid_until", "C", "DUPLICATES"),
    breaks("I1", "D, doubled requests", "nothing recognises the second", "D", "DUPLICATES"),
    breaks("I3", "A, forgetful, doubled", "rejected, then the copy is live", "A", "DUPLICATES", "FORGETS_REJECTIONS"),
    # ---- the models that hold are not empty ----
    reaches("A: placed at attempt 3", "after two unknown outcomes", "A", "status == placed && attempt == 3", TODAY),
    reaches("A: failed", "no attempt reached the venue", "A", "status == failed", TODAY),
    reaches("A: rejected in doubt", "the venue remembers: it is final", "A", "status == rejected && doubt"),
    reaches("A: refused in doubt", "any copy is", "A", "status == rejected && doubt", "FORGETS_REJECTIONS BY_CONTENT"),
    reaches("A: late original", "arrives with the order pending", "A", "status == pending && live_orders == 1"),
    reaches("A: parked in doubt", "rejected", "A", "parked && doubt && live_orders == 1", "FORGETS_REJECTIONS"),
    reaches("B: parked after window", "found live by the operator", "B", "parked && window_over && live_orders == 1"),
    reaches("C: placed at attempt 3", "after two stamps that ran out", "C", "status == placed && attempt == 3"),
    reaches("D: parked and live", "waits for an operator", "D", "parked && live_orders == 1"),
    reaches("D: canceled", "after an attempt that was not sent", "D", "status == canceled && attempt == 1"),
    reaches("D: placed at attempt 2", "after one that was not sent", "D", "status == placed && attempt == 2"),
]  # fmt: skip

REQUESTING = [
    # ---- cancel and replace, by class of venue; without REPORTS only answers and look-ups tell what happened ----
    request_holds("requests, A", "late requests, frozen workers", "A", quick_scope=""),
    request_holds("requests, A, reports", "likewise; the stream is as late as it likes", "A", "REPORTS"),
    request_holds("requests, A, doubled", "something on the way sends a request twice", "A", "DUPLICATES"),
    request_holds("requests, B", "anything late, but not later than the window", "B"),
    request_holds("requests, B, reports", "likewise, with a stream", "B", "REPORTS"),
    request_holds("requests, C", "the stamp makes late requests void", "C", quick_scope=""),
    request_holds("requests, C, reports", "likewise, with a stream", "C", "REPORTS"),
    request_holds("requests, D, punctual", "safe while the settle time is a law", "D", "PUNCTUAL", quick_scope=""),
    request_holds("requests, D, reports", "likewise, with a stream", "D", "PUNCTUAL REPORTS"),
    request_holds("requests, D, chain", "the venue checks 41, and doubled is harmless", "D", "PUNCTUAL CHAIN DUPLICATES"),
    request_holds("requests, D, later", "the settle time includes the venue's decision", "D", "PUNCTUAL LATER"),
    # ---- one safeguard less ----
    request_breaks("believed", "no answer is refused", "the next one is sent, and it was done", "A", "NO_ANSWER_IS_REFUSED", scope=PAIR, faults=1),
    request_breaks("once", "replace, no settle time", "sent again, and a copy arrives after R2", "D", "NO_SETTLE", "PUNCTUAL", scope=REPLACES),
    request_breaks("once", "replace, early release", "likewise, before valid_until", "C", "EARLY_RELEASE", scope=REPLACES),
    request_breaks("once", "two replaces at a time", "the older one arrives last", "A", "NO_GATE", scope=REPLACES, faults=1),
    request_breaks("shown live", "cancel, repeat believed", "too late, because the first one did it", "D", "BELIEVE_REPEAT", "PUNCTUAL", scope=CANCELS, faults=1),
    request_breaks("believed", "replace, repeat believed", "refused, and the first one is done", "D", "BELIEVE_REPEAT", "PUNCTUAL CHAIN DUPLICATES", scope=REPLACES),
    request_breaks("once", "replace, fresh id", "each attempt under an id of its own", "A", "FRESH_ID", scope=REPLACES),
    request_breaks("built on", "current when asked", "41 names a replace that was refused", "D", "CURRENT_WHEN_ASKED", "PUNCTUAL CHAIN DUPLICATES", scope=REPLACES),
    request_breaks("believed", "replace, no mark", "superseded while on the wire", "D", "NO_MARK", "PUNCTUAL", scope=PAIR, faults=1),
    request_breaks("believed", "replace, no fence", "a late refusal ends a newer attempt", "D", "NO_FENCE", "PUNCTUAL", scope=REPLACES),
    request_breaks("believed", "replace, late refusal reported", "likewise, by the stream", "D", "BELIEVE_REFUSAL_REPORT", "PUNCTUAL REPORTS", scope=REPLACES),
    request_breaks("shown live", "cancel, late refusal reported", "likewise", "D", "BELIEVE_REFUSAL_REPORT", "PUNCTUAL REPORTS", scope=CANCELS),
    request_breaks("believed", "cancel closes replace", "the unanswered replace was done before it", "D", "CANCEL_CLOSES_REPLACE", "PUNCTUAL", scope=PAIR, faults=1),
    request_breaks("believed", "end is enough", "replaced, then the day ended: not moot", "D", "END_IS_ENOUGH", "PUNCTUAL", scope="ONE_REPLACE NO_CANCEL NO_FILLS", faults=1),
    request_breaks("believed", "amended first", "a filled order shows its old quantity", "D", "AMENDED_FIRST", "PUNCTUAL", scope="ONE_REPLACE NO_CANCEL NO_CLOSE", faults=1),
    request_breaks("believed", "superseded in doubt", "a replace to be sent again may have arrived", "A", "SUPERSEDE_IN_DOUBT", scope=PAIR),
    request_breaks("believed", "failed in doubt", "not sent, but an earlier attempt was", "A", "FAIL_IN_DOUBT", scope=REPLACES),
    request_breaks("once", "taken is settled", "sent again while the venue considers it", "D", "TAKEN_IS_SETTLED", "PUNCTUAL LATER", scope=REPLACES),
    request_breaks("built on", "replaces out of order", "a late report of an older one sets terms back", "A", "NO_ORDER", "REPORTS", scope=REPLACES),
    request_breaks("202", "202 before commit", "a cancel that is not stored", "A", "ANSWER_BEFORE_COMMIT", scope=CANCELS, faults=1),
    request_breaks("once", "D, late replace", "no settle time is long enough: it arrives after R2", "D", "LATE", "PUNCTUAL", scope=REPLACES),
    request_breaks("once", "D, doubled replace", "likewise; nothing recognises the copy", "D", "DUPLICATES", "PUNCTUAL", scope=REPLACES, faults=1),
    # ---- the models that hold are not empty ----
    request_reaches("replace, then cancel", "both done", "A", "status[R1] == accepted && applied[C] && status[C] == accepted", scope=PAIR, faults=1),
    request_reaches("both replaces", "at the third attempt", "D", "status[R2] == accepted && terms == TERMS(1, 1) && faults == 2", "PUNCTUAL", scope=REPLACES),
    request_reaches("replace after a cancel", "that was refused", "D", "status[C] == refused && status[R1] == accepted", "PUNCTUAL", scope=PAIR, faults=1),
    request_reaches("late replace of a dead order", "refused", "D", "applied[C] && status[R1] == moot && faults == 2", "PUNCTUAL", scope=PAIR),
    request_reaches("superseded", "by a cancel", "C", "status[R1] == superseded", scope=PAIR, faults=1),
    request_reaches("B: parked after window", "found done by a look-up", "B", "parked[R1] && window_over", scope=REPLACES),
]  # fmt: skip
VARIANTS = PLACING + REQUESTING


def unfounded() -> list[str]:
    """Broken variants of which the unbroken one is not shown to hold: they would prove nothing."""
    sound = {(each.model, each.venue, each.world) for each in VARIANTS if each.expected == HOLDS}
    return [each.name for each in VARIANTS if each.broken and (each.model, each.venue, each.world) not in sound]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a bounded run for CI")
    parser.add_argument("--story", metavar="NAME", help="tell the history of one variant")
    options = parser.parse_args()
    for program, what in (("spin", "Spin"), ("gcc", "The C compiler")):  # Spin itself calls gcc by this name
        if shutil.which(program) is None:
            return fail(f"{what} is missing: install the Debian package `{program}` (apt-get install {program}).")
    if options.story:
        chosen = next((variant for variant in VARIANTS if variant.name == options.story), None)
        if chosen is None:
            return fail("No such variant. There are:\n  " + "\n  ".join(variant.name for variant in VARIANTS))
        print(tell(chosen))
        return 0
    if names := unfounded():
        return fail(f"No variant that holds is the base of: {', '.join(names)}.")
    return run(VARIANTS, quick=options.quick)


def fail(message: str) -> int:
    print(message, file=sys.stderr)
    return 2


def run(variants: list[Variant], *, quick: bool) -> int:
    """Check the variants, as many at a time as there are cores, and print a row for each."""
    started = time.monotonic()
    row = "{:<30} {:<52} {:<10} {:<13} {:>9} {:>6}".format
    print(row("variant", "what it shows", "expected", "got", "states", "s"))
    different = 0
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    with ThreadPoolExecutor(cores) as pool:
        for variant, finding in zip(variants, pool.map(lambda v: check(v, quick), variants), strict=True):
            mark = "" if finding.got == variant.expected else "  <-- differs"
            different += bool(mark)
            got = (finding.got, finding.states, f"{finding.seconds:.1f}")
            print(row(variant.name, variant.shows, variant.expected, *got) + mark, flush=True)
    total = time.monotonic() - started
    print(f"{len(variants)} variants, {different} not as expected, {total:.0f} s")
    return 1 if different else 0


def check(variant: Variant, quick: bool) -> Finding:
    """Search all histories of one variant for one that must not happen."""
    with tempfile.TemporaryDirectory(prefix="model-") as directory:
        where, started = Path(directory), time.monotonic()
        problem = build(where, variant, quick, "-DCOLLAPSE", "-O0" if quick else "-O1")
        if problem:
            return Finding(problem)
        try:
            said = call(where, "./pan", "-m100000", "-w20").stdout
        except subprocess.TimeoutExpired:
            return Finding(f"> {SECONDS} s", 0, time.monotonic() - started)
        states = re.search(r"(\d+(?:\.\d+e\+\d+)?) states, stored", said)
        return Finding(verdict(variant, said), int(float(states[1])) if states else 0, time.monotonic() - started)


def verdict(variant: Variant, said: str) -> str:
    if re.search(r"out of memory|max search depth too small|Interrupted|aborting", said):
        return "not finished"
    if "invalid end state" in said.split("State-vector")[0].split("(Spin Version")[0]:
        return "I2: stuck"
    if broken := re.search(r"assertion violated (.*) \(at depth", said):
        if "attempt<" in broken[1] or "n<" in broken[1] or "reported<" in broken[1]:
            return "LIMIT too low"
        return variant.expected if variant.expected != HOLDS else "violated"
    return HOLDS if re.search(r"errors: 0\b", said) else "no verdict"


def build(where: Path, variant: Variant, quick: bool, *options: str) -> str:
    """Make the checker of one variant. Returns what went wrong, in short, or an empty string."""
    model = variant.model
    (where / model.name).write_text("\n".join([*variant.switches(quick), model.read_text()]))
    made = call(where, "spin", "-a", model.name)
    if made.returncode or "Error" in made.stdout:
        print(made.stdout, file=sys.stderr)
        return "spin error"
    built = call(where, "gcc", "-w", "-DSAFETY", f"-DMEMLIM={MEMORY_MB}", *options, "-o", "pan", "pan.c")
    if built.returncode:
        print(built.stderr, file=sys.stderr)
        return "cc error"
    return ""


def tell(variant: Variant) -> str:
    with tempfile.TemporaryDirectory(prefix="model-") as directory:
        where = Path(directory)
        problem = build(where, variant, False, "-O2", "-DBFS")  # finds a shortest history
        if problem:
            return problem
        try:
            said = call(where, "./pan", "-m100000", "-w20").stdout
        except subprocess.TimeoutExpired:
            return f"No history was found in {SECONDS} s, and not all were searched."
        if not (where / f"{variant.model.name}.trail").exists():
            if verdict(variant, said) != HOLDS:
                return f"No history was found in {MEMORY_MB} MB of memory, and not all were searched."
            return "It holds: there is nothing to tell."
        told = call(where, "spin", "-t", variant.model.name).stdout
    lines = [re.sub(r"\bR3\b", "C", line.replace(" (3 is C)", "")) for line in re.findall(r"MSC: (.*)", told)]
    end = f"So this is reached: {variant.reach}" if variant.reach else f"So this is broken: {variant.expected}"
    return "\n".join([*lines, f"{end}."])


def call(where: Path, *command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=where, capture_output=True, text=True, timeout=SECONDS, check=False)


if __name__ == "__main__":
    sys.exit(main())
