"""Asking an agent from another machine."""

from typing import Final

from support.agent_process import AgentProcess
from support.wires import Machine

_ASK: Final = """
import http.client, sys
host, port, token = sys.argv[1:]
connection = http.client.HTTPConnection(host, int(port), timeout=3)
try:
    connection.request("POST", "/heartbeat", headers={"Authorization": "Bearer " + token})
    print(connection.getresponse().status)
except OSError as error:
    print(type(error).__name__)
"""


def asked_by(machine: Machine, agent: AgentProcess, host: str) -> str:
    """What a heartbeat from this machine gets, with the right token: a status, or the name of its error."""
    return machine.python(_ASK, host, agent.port, agent.token)
