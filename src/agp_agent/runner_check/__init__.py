"""``agp-agent runners list|check``: the catalog for people, and each of its runners tried for real."""

from agp_agent.runner_check.check import check_runners
from agp_agent.runner_check.listing import document, table
from agp_agent.runner_check.report import Report

__all__ = ["Report", "check_runners", "document", "table"]
