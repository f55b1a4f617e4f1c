"""The simulated exchange without Django: `python -m exchanges.simulator`."""

import argparse
import sys

from exchanges.simulator.options import DESCRIPTION, EPILOG, add_arguments, read_options
from exchanges.simulator.process import CannotRun, run
from quiktrade import processes


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m exchanges.simulator",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_arguments(parser)
    arguments = parser.parse_args()
    processes.end_with_parent()
    try:
        options = read_options(arguments)
    except ValueError as error:
        parser.error(str(error))
    try:
        run(options)
    except CannotRun as error:
        sys.exit(f"Simulated exchange: {error}")


main()
