"""The development dashboard: a stand-in for the enterprise's real one, for trying the agent and its contract.

It receives results, keeps them in SQLite, shows them in the terminal and on one page. Not for production.
"""

from agp_agent.dev_dashboard.serving import run_dashboard

__all__ = ["run_dashboard"]
