"""Where the agent's tokens stand while it runs: in files or its environment, and nowhere that others look."""

from pathlib import Path

from support.agent_process import AgentProcess
from support.dashboard_stub import DashboardStub
from support.waiting import eventually


def test_tokens_are_in_no_command_line_no_url_and_no_file_of_the_agent(
    dashboard: DashboardStub, tmp_path: Path
) -> None:
    """With tokens from files: not even in the environment; requests and deliveries carry them in headers alone."""
    files = {"AGP_TOKEN_FILE": tmp_path / "in", "AGP_DASHBOARD_TOKEN_FILE": tmp_path / "out"}
    with AgentProcess(tmp_path / "agent", dashboard.url, dashboard.token, files) as agent:
        agent.accept_task("told", "echo told")
        delivery = dashboard.acknowledged("told")
        process = Path(f"/proc/{agent.process.pid}")
        secrets = [agent.token.encode(), dashboard.token.encode()]
        for place in ("cmdline", "environ"):
            content = (process / place).read_bytes()
            assert content  # control: it can be looked at
            assert not any(secret in content for secret in secrets), place
        assert dashboard.token not in delivery.path
        assert [name for name, value in delivery.headers.items() if dashboard.token in value] == ["authorization"]
        eventually(lambda: not list(agent.state.glob("slots/*")), "the task is tidied up")
        for path in [agent.log_path, *(path for path in agent.state.rglob("*") if path.is_file())]:
            assert not any(secret in path.read_bytes() for secret in secrets), path
