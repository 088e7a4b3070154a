"""The commands. No logic: each reads its arguments, calls one function, and turns errors into sentences and exit codes.

Exit codes: 0 done, 1 failed, 2 wrong usage, 69 engine unavailable, 78 configuration.
"""

import errno
import os
import sys

from agp_agent.cli import agent, audit, configuration, operations, runners, tasks
from agp_agent.cli.common import EXIT_FAILED, EXIT_INTERRUPTED, app

__all__ = ["agent", "app", "audit", "configuration", "main", "operations", "runners", "tasks"]


def main() -> None:
    """Entry point of the command ``agp-agent``."""
    try:
        try:
            app()
        finally:
            sys.stdout.flush()
    except KeyboardInterrupt:  # before or after the part that listens for it
        raise SystemExit(EXIT_INTERRUPTED) from None
    except OSError as error:
        if error.errno not in {errno.ENOSPC, errno.EPIPE}:
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what is left of it is not tried again at the end of the process
        if error.errno == errno.ENOSPC:
            sys.stderr.write("agp-agent: what this prints cannot be written: no space is left where it goes.\n")
        raise SystemExit(EXIT_FAILED) from None
