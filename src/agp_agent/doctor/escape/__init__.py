"""Attempts to get out of a task's container, made for real: what ``agp-agent doctor --escape`` runs."""

from agp_agent.doctor.escape.attempt import Attempt, Host, Outcome, Verdict, outcome
from agp_agent.doctor.escape.attempts import SAFE_ATTEMPTS
from agp_agent.doctor.escape.run import attempt_all

__all__ = ["SAFE_ATTEMPTS", "Attempt", "Host", "Outcome", "Verdict", "attempt_all", "outcome"]
