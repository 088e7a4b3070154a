"""The journal: the one durable truth about every accepted task, and the place where the loops meet."""

from agp_agent.errors import JournalDamaged
from agp_agent.journal.database import JournalInDoubt, JournalLocked, JournalUnavailable, check_schema, set_aside
from agp_agent.journal.journal import Journal
from agp_agent.journal.records import (
    Accepted,
    Admission,
    Attempt,
    Delivery,
    DueResult,
    LostAttempt,
    NewAttempt,
    Release,
    Waiting,
)
from agp_agent.journal.survey import Standing, Survey, survey

__all__ = [
    "Accepted",
    "Admission",
    "Attempt",
    "Delivery",
    "DueResult",
    "Journal",
    "JournalDamaged",
    "JournalInDoubt",
    "JournalLocked",
    "JournalUnavailable",
    "LostAttempt",
    "NewAttempt",
    "Release",
    "Standing",
    "Survey",
    "Waiting",
    "check_schema",
    "set_aside",
    "survey",
]
