"""The agent's HTTP API: routes and error bodies, no logic."""

from agp_agent.api.app import Access, create_api
from agp_agent.api.entrance import Entrance
from agp_agent.api.server import AgentServer

__all__ = ["Access", "AgentServer", "Entrance", "create_api"]
