"""Runs the suites that any engine passes on one of their own, so that others may use the machine's meanwhile.

``python -m engines.beside ARGUMENT…``; the arguments are pytest's, and so is the exit code.
"""

import contextlib
import os
import signal
import subprocess
import sys

from engines.suites import ON_ANY_ENGINE, engine_for_suites


def main(arguments: list[str]) -> int:
    """Run them; the exit code."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell starts what is beside it with Ctrl-C ignored
    with engine_for_suites() as engine:
        command = (sys.executable, "-m", "pytest", *ON_ANY_ENGINE, *arguments)
        running = subprocess.Popen(command, env=os.environ | {"DOCKER_HOST": engine.docker_host})
        while True:
            with contextlib.suppress(KeyboardInterrupt):  # pytest heard it, too: it tidies up, and ends
                return running.wait()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
