"""The agent's HTTP API: routes and error bodies, no logic."""

from agp_agent.api.app import Access, create_api
from agp_agent.api.server import AgentServer

__all__ = ["Access", "AgentServer", "create_api"]
