"""An agent that asks a tailscaled who its peers are; the stub answers in its place."""

import json
from pathlib import Path

from agp_agent.tokens import fingerprint
from support.agent_process import AgentProcess
from support.cli import command_line
from support.dashboard_stub import DashboardStub
from support.raw_http import exchange, request
from support.tailscaled_stub import TailscaledStub, node


def test_only_allowed_nodes_come_in_and_the_trail_names_them(dashboard: DashboardStub, tmp_path: Path) -> None:
    """A right token is not enough any more; probes need neither; without tailscaled nobody comes in, loudly."""
    stub = TailscaledStub(tmp_path / "tailscaled.sock")
    stub.peers["127.0.0.5"] = node("dash.example.ts.net", "tag:dashboard")
    stub.peers["127.0.0.6"] = node("laptop.example.ts.net", "tag:laptop")
    settings = {"AGP_TAILSCALE_SOCKET": stub.path, "AGP_TAILSCALE_ALLOW": "tag:dashboard, nOtherCNTRL"}
    with AgentProcess(tmp_path / "agent", dashboard.url, dashboard.token, settings) as agent:
        heartbeat = request("POST", "/heartbeat", agent.headers)

        def status(source: str) -> int:
            return exchange(agent.port, [heartbeat], source=source).status

        with stub.serving():
            assert [status(f"127.0.0.{number}") for number in (5, 6, 7)] == [200, 401, 401]
            wrong = exchange(agent.port, [request("POST", "/heartbeat", {})], source="127.0.0.7")
            right = exchange(agent.port, [heartbeat], source="127.0.0.7")
            assert (right.status, right.body) == (wrong.status, wrong.body)
            body = b'{"task_id":"named","playbook":{"name":"p.none","content":"x"}}'
            order = request("POST", "/execute_task", agent.headers | {"Content-Type": "application/json"}, body)
            assert exchange(agent.port, [order], source="127.0.0.5").status == 202
        accepted = agent.wait_audited("task accepted", task_id="named")
        assert (accepted["peer"], accepted["node"], accepted["tags"]) == (
            *("127.0.0.5", "dash.example.ts.net", ["tag:dashboard"]),
        )
        assert accepted["token_fingerprint"] == fingerprint(agent.token.encode())
        refused = agent.wait_audited("auth failed", node="laptop.example.ts.net")
        assert refused["wrong"] == "peer: its node is not among AGP_TAILSCALE_ALLOW"
        assert status("127.0.0.5") == 401
        said = agent.wait_log("nobody can be let in: tailscaled is not there, or not in the tailnet")
        assert (said["level"], str(stub.path) in said["why"]) == ("error", True)
        agent.wait_audited("agent degraded", part="tailscaled")
        assert exchange(agent.port, [request("GET", "/healthz", {})]).status == 200
        listed = command_line(agent.environment)("tasks", "list", "--json")  # by the socket in its state directory
        assert [task["task_id"] for task in json.loads(listed.stdout)["tasks"]] == ["named"], listed.stderr
        with stub.serving():
            assert status("127.0.0.5") == 200
        agent.wait_audited("agent recovered", part="tailscaled")
