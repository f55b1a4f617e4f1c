#!/usr/bin/env python3
"""`python benchmarks/run.py`: measures QuikTrade against its references. It starts all that it needs.

If packages are missing, it first installs them: the product's into .venv, the references' into .data/benchmarks/venv.
PostgreSQL, web, workers, venues and references belong to this run alone, and are in a directory that is removed at
the end.
"""

import argparse
import logging
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[0] = str(ROOT)  # this folder holds modules of a package, not modules to import by name

_DIRECTORY = "QUIKTRADE_BENCHMARK"
"""The command sets this variable when it starts itself again with its own directory and database."""

EPILOG = """\
  run.py                      all but the big table, 3 repeats: about 20 minutes
  run.py --quick              does it work? Under two minutes; the figures mean little
  run.py --quick --all        the same for every scenario, with a small big table
  run.py --only accept,batch  these alone
  run.py --only big           the hot statements with 10 million orders: ten minutes, and some 20 GB of disk

exit status: 0 all was measured, whatever came of it; 1 something could not be measured; 2 wrong usage
"""


def main() -> int:
    # These imports come late, because an older Python, or one without the packages, can read only this file.
    from manage import refuse_old_python

    refuse_old_python()
    if sys.platform != "linux":
        sys.exit("The benchmark needs Linux: it counts processor time in /proc.")
    from quiktrade.local import bootstrap

    bootstrap.ensure_packages(sys.argv)
    arguments = _arguments()
    directory = os.environ.get(_DIRECTORY)
    if directory is None:
        _start_anew()
    assert directory is not None

    import django

    from quiktrade.local.postgres import lease

    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "quiktrade.settings")
    os.environ["DATABASE_URL"] = lease.url()
    django.setup()
    logging.disable(logging.WARNING)  # halting a venue is routine here, and the parts have their own logs
    try:
        return _measure(arguments, Path(directory))
    finally:
        if arguments.keep:
            sys.stderr.write(f"Logs are in {directory}\n")
        else:
            shutil.rmtree(directory, ignore_errors=True)


def _start_anew() -> None:
    """Start this command again, with its data, database and secret key in a new directory.

    The directory is in the checkout: a temporary one may be in memory, where a commit waits for no disk.
    """
    base = ROOT / ".data" / "benchmarks"
    base.mkdir(parents=True, exist_ok=True)
    directory = Path(tempfile.mkdtemp(prefix="run-", dir=base))
    directory.chmod(0o711 if os.geteuid() == 0 else 0o700)  # PostgreSQL's own account must pass through
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("QUIKTRADE_", "PG"))}
    environment.pop("DATABASE_URL", None)
    environment |= {_DIRECTORY: str(directory), "QUIKTRADE_DATA": str(directory)}
    sys.stdout.flush()
    os.execve(sys.executable, [sys.executable, *sys.argv], environment)  # noqa: S606  this very program


def _measure(arguments: argparse.Namespace, directory: Path) -> int:
    from rich.console import Console

    from benchmarks.speed import environment, plot, report
    from benchmarks.speed.scenarios import LONG, SCENARIOS, SLOW_TO_START
    from benchmarks.speed.session import Options, Session
    from benchmarks.speed.stage import Stage, interrupt_as_keyboard
    from quiktrade.local.postgres.server import LocalDatabaseError

    console = Console() if sys.stdout.isatty() else Console(width=160)
    left_out = frozenset() if arguments.all else SLOW_TO_START if arguments.quick else LONG
    chosen = arguments.only or [name for name in SCENARIOS if name not in left_out]
    if unknown := [name for name in chosen if name not in SCENARIOS]:
        console.print(f"--only: there is no {', '.join(unknown)}; there are {', '.join(SCENARIOS)}")
        return 2
    quick = arguments.quick
    options = Options(
        seconds=arguments.seconds or (1.0 if quick else 8.0),
        repeats=arguments.repeat or (1 if quick else 3),
        quick=quick,
        rows=arguments.rows or (20_000 if quick else 10_000_000),
        moving_rows=arguments.rows or (20_000 if quick else 100_000),
        json=arguments.json,
        svg=arguments.svg,
    )
    interrupt_as_keyboard()
    begun = time.monotonic()
    stage = None
    failed = []
    try:
        stage = Stage(directory, environment.ensure(), dict(arguments.env))
        stage.start()
        session = Session(stage, options, console)
        with session.scenarios(chosen):
            for name in chosen:
                session.begin(name)
                try:
                    SCENARIOS[name](session)
                except Exception as error:
                    failed.append(name)
                    session.note(f"not measured: {type(error).__name__}: {error}")
                    if arguments.traceback:
                        console.print_exception()
                session.done()
        report.print_report(session, console)
        content = report.as_json(session, seconds=time.monotonic() - begun)
        report.write_json(content, options.json)
        options.svg.write_text(plot.draw(session.measures, content["machine"], content["made_at"][:10]))
        console.print(f"Written: {options.json}, {options.svg}")
    except KeyboardInterrupt:
        console.print("Interrupted: nothing is written.")
        return 130
    except LocalDatabaseError as error:
        console.print(str(error), markup=False)
        return 1
    except environment.CannotInstall as error:
        console.print(f"The references' packages cannot be installed.\n{error}", markup=False)
        return 1
    finally:
        if stage is not None:
            stage.stop()
    return 1 if failed else 0


def _arguments() -> argparse.Namespace:
    here = Path(__file__).resolve().parent
    parser = argparse.ArgumentParser(
        description="Measure QuikTrade against its references, and say which of its targets it meets.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add(
        "--only",
        type=_names,
        metavar="NAME,...",
        help="accept, batch, placement, trickle, cancels, trouble, reads, mixed, streams, resume, nodes, overload, "
        "book, reports, lag, big",
    )
    add("--all", action="store_true", help="every scenario, the big table too")
    add("--quick", action="store_true", help="short, once: whether it works, not how fast")
    add("--repeat", type=int, metavar="N", help="repeats of each measurement, in turns (3)")
    add("--seconds", type=float, metavar="S", help="length of each measurement under load (8)")
    add("--rows", type=int, metavar="N", help="orders in the table of big (10,000,000) and of moving (100,000)")
    add("--json", type=Path, default=here / "results.json", metavar="FILE", help="(benchmarks/results.json)")
    add("--svg", type=Path, default=here / "results.svg", metavar="FILE", help="(benchmarks/results.svg)")
    add(
        "--env",
        type=_pair,
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="a variable for the product's processes, to try a setting; may be repeated",
    )
    add("--keep", action="store_true", help="keep the run's directory, with its logs")
    add("--traceback", action="store_true", help="show the traceback of a scenario that failed")
    return parser.parse_args()


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _pair(text: str) -> tuple[str, str]:
    name, sign, value = text.partition("=")
    if not sign or not name:
        raise argparse.ArgumentTypeError("NAME=VALUE is needed")
    return name, value


if __name__ == "__main__":
    sys.exit(main())
