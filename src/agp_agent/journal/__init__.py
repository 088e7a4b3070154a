"""The journal: the one durable truth about every accepted task, and the place where the loops meet."""

from agp_agent.errors import JournalDamaged
from agp_agent.journal.aside import set_aside
from agp_agent.journal.database import (
    JournalBroken,
    JournalInDoubt,
    JournalLocked,
    JournalUnavailable,
    check_schema,
)
from agp_agent.journal.journal import Journal
from agp_agent.journal.reading import views_of
from agp_agent.journal.records import (
    Accepted,
    Admission,
    Attempt,
    Delivery,
    DueResult,
    LostAttempt,
    NewAttempt,
    Release,
    Reservation,
    Start,
    Waiting,
)
from agp_agent.journal.survey import Standing, Survey, survey
from agp_agent.journal.views import ALIAS_PREFIX, DeliveryView, Kept, OutboxView, TaskFilter, TaskView, Views

__all__ = [
    "ALIAS_PREFIX",
    "Accepted",
    "Admission",
    "Attempt",
    "Delivery",
    "DeliveryView",
    "DueResult",
    "Journal",
    "JournalBroken",
    "JournalDamaged",
    "JournalInDoubt",
    "JournalLocked",
    "JournalUnavailable",
    "Kept",
    "LostAttempt",
    "NewAttempt",
    "OutboxView",
    "Release",
    "Reservation",
    "Standing",
    "Start",
    "Survey",
    "TaskFilter",
    "TaskView",
    "Views",
    "Waiting",
    "check_schema",
    "set_aside",
    "survey",
    "views_of",
]
