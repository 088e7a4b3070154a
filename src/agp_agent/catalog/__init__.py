"""The catalog of runners: which curated image runs which playbook, and within which limits.

Only the operator's catalog decides that; a task can never widen it.
"""

from agp_agent.catalog.catalog import Catalog
from agp_agent.catalog.live import Catalogs
from agp_agent.catalog.reading import load, schema
from agp_agent.catalog.runner import PLAYBOOK, HostMount, Match, Runner, SeccompProfile

__all__ = [
    "PLAYBOOK",
    "Catalog",
    "Catalogs",
    "HostMount",
    "Match",
    "Runner",
    "SeccompProfile",
    "load",
    "schema",
]
