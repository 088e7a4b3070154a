"""The programs of the escape attempts: ordinary modules, which run as playbooks inside a container.

A program is a function of one argument, the facts: what an attacker could know at best (paths, addresses, process
numbers of the host). It uses the standard library and ``prelude``, for nothing else is in the container.
"""

import inspect
import json
import re
from collections.abc import Callable, Mapping
from typing import Any, Final

from agp_agent.doctor.escape.programs import prelude

Program = Callable[[Mapping[str, Any]], None]

_OUR_IMPORT: Final = re.compile(r"^from agp_agent\.[\w.]+ import (\([^)]*\)|.*)$", re.MULTILINE)


def playbook(program: Program, facts: Mapping[str, Any]) -> str:
    """The program as a playbook for the Python runner: prelude and module in one text, and the call."""
    module = inspect.getmodule(program)
    assert module is not None
    sources = (inspect.getsource(prelude), _OUR_IMPORT.sub("", inspect.getsource(module)))
    return "\n".join((*sources, f"run({program.__name__}, json.loads({json.dumps(facts)!r}))\n"))
