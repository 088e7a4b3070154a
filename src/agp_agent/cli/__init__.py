"""The commands. No logic: each reads its arguments, calls one function, and turns errors into sentences and exit codes.

Exit codes: 0 done, 1 failed, 2 wrong usage, 69 engine unavailable, 78 configuration.
"""

from agp_agent.cli import agent, audit, configuration, operations, runners, tasks
from agp_agent.cli.common import EXIT_INTERRUPTED, app

__all__ = ["agent", "app", "audit", "configuration", "main", "operations", "runners", "tasks"]


def main() -> None:
    """Entry point of the command ``agp-agent``."""
    try:
        app()
    except KeyboardInterrupt:  # before or after the part that listens for it
        raise SystemExit(EXIT_INTERRUPTED) from None
