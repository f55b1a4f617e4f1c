#!/usr/bin/env python3
"""Check placement.pml: that the protocol holds, and that it breaks when any one safeguard is taken away.

    python3 docs/model/check.py                all variants
    python3 docs/model/check.py --quick        two faults instead of three, where that is enough: for CI
    python3 docs/model/check.py --story NAME   tell the shortest history that breaks (or reaches) a variant

Needs Spin (Debian package `spin`) and a C compiler (`gcc`). Exit code: 0 all as expected, 1 not, 2 usage or
a missing program.
"""

# ruff: noqa: T201  (a program for people: it prints)

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

MODEL = Path(__file__).with_name("placement.pml")
MEMORY_MB = 2000
"""The limit for one variant; the largest needs a fifth of it. Running out of it is reported, not taken for a proof."""
SECONDS = 600

CLASSES = {
    "A": "REFUSES_DUPLICATES",
    "B": "REFUSES_RECENT_DUPLICATES",
    "C": "REFUSES_STALE_REQUESTS",
    "D": "NOTHING",
}
PROPERTIES = {"I1": 1, "I2": 2, "I3": 3, "I4": 4, "evidence": 5}
HOLDS, REACHED = "holds", "reached"


@dataclass(frozen=True)
class Variant:
    """A class of venue and switches of the model, and the result that is expected.

    `world` is what is assumed, and `broken` the one safeguard that is taken away. `expected` is HOLDS, REACHED, or the
    property that must break. `faults` is for the full run.
    """

    name: str
    shows: str
    venue: str
    world: str = ""
    broken: str = ""
    expected: str = HOLDS
    faults: int = 3
    reach: str = ""

    def switches(self, quick: bool) -> list[str]:
        """The lines that turn the model into this variant."""
        flags = [f"VENUE {CLASSES[self.venue]}", f"FAULTS {min(self.faults, 2) if quick else self.faults}"]
        flags += [*self.world.split(), *self.broken.split()]
        if self.expected in PROPERTIES:
            flags.append(f"ONLY {PROPERTIES[self.expected]}")
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


TODAY = "PUNCTUAL IGNORE_DOUBT"  # the code trusts the settle time, and so keeps no doubt after it

VARIANTS = [
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


def unfounded() -> list[str]:
    """Broken variants of which the unbroken one is not shown to hold: they would prove nothing."""
    sound = {(variant.venue, variant.world) for variant in VARIANTS if variant.expected == HOLDS}
    return [variant.name for variant in VARIANTS if variant.broken and (variant.venue, variant.world) not in sound]


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
    row = "{:<26} {:<52} {:<9} {:<13} {:>9} {:>6}".format
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
    with tempfile.TemporaryDirectory(prefix="placement-") as directory:
        where, started = Path(directory), time.monotonic()
        problem = build(where, variant.switches(quick), "-DCOLLAPSE", "-O0" if quick else "-O1")
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
        if "attempt<" in broken[1]:
            return "LIMIT too low"
        return variant.expected if variant.expected != HOLDS else "violated"
    return HOLDS if re.search(r"errors: 0\b", said) else "no verdict"


def build(where: Path, switches: list[str], *options: str) -> str:
    """Make the checker of one variant. Returns what went wrong, in short, or an empty string."""
    (where / MODEL.name).write_text("\n".join([*switches, MODEL.read_text()]))
    made = call(where, "spin", "-a", MODEL.name)
    if made.returncode or "Error" in made.stdout:
        print(made.stdout, file=sys.stderr)
        return "spin error"
    built = call(where, "gcc", "-w", "-DSAFETY", f"-DMEMLIM={MEMORY_MB}", *options, "-o", "pan", "pan.c")
    if built.returncode:
        print(built.stderr, file=sys.stderr)
        return "cc error"
    return ""


def tell(variant: Variant) -> str:
    with tempfile.TemporaryDirectory(prefix="placement-") as directory:
        where = Path(directory)
        problem = build(where, variant.switches(quick=False), "-O2", "-DBFS")  # finds a shortest history
        if problem:
            return problem
        call(where, "./pan", "-m100000", "-w20")
        if not (where / f"{MODEL.name}.trail").exists():
            return "It holds: there is nothing to tell."
        told = call(where, "spin", "-t", MODEL.name).stdout
    return "\n".join(re.findall(r"MSC: (.*)", told))


def call(where: Path, *command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=where, capture_output=True, text=True, timeout=SECONDS, check=False)


if __name__ == "__main__":
    sys.exit(main())
