"""The Docker adapter of the ``ContainerEngine`` port: the only place that knows Docker's SDK and API."""

from agp_agent.docker_engine.endpoint import Endpoint
from agp_agent.docker_engine.engine import DockerEngine

__all__ = ["DockerEngine", "Endpoint"]
