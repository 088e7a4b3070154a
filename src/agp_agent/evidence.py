"""How a container ended, from what is known of it: pure decisions over one piece of evidence.

A bare exit code 137 may be anything, and an engine that was restarted may have ended the container, or not have been
there when it ended. What the engine says now has to be read together with whether it lived through the run.
"""

from dataclasses import dataclass
from typing import Final

from agp_agent.engine import ContainerState, History
from agp_agent.lifecycle import ContainerExit, Reason

SIGNAL_EXIT_BASE: Final = 128
_ENGINE_STOP_CODES: Final = frozenset({137, 143})
"""What a container ends with that its engine stopped: KILL and TERM."""
_UNKNOWN_CODE: Final = 255
"""What dockerd says where it cannot know; a playbook may end with it, too."""
_TOLD_LATE_S: Final = 0.1
"""An engine that is there tells of an end within a few hundredths of a second."""
_NOT_ASKED: Final = History()


@dataclass(frozen=True, slots=True)
class Evidence:
    """What was found out once a run had ended."""

    state: ContainerState
    same_contact: bool
    """Contact to the engine has not been broken since the container was created."""
    history: History = _NOT_ASKED
    """What the engine's process remembers; nothing where nobody had to ask."""
    asked_before: Reason | None = None
    """An earlier agent stopped the container for this reason, or was about to."""
    before_its_stop: bool = False
    """It had ended by itself before it was told to."""

    @property
    def by_itself(self) -> bool:
        """Whether, as far as inspect tells, nobody ended it."""
        return (
            self.state.exit_code < SIGNAL_EXIT_BASE
            and self.asked_before is None
            and (not self.state.killed or self.before_its_stop)
        )

    @property
    def is_plain(self) -> bool:
        """Whether how it ended is clear without the engine's memory."""
        return self.same_contact and (self.state.oom_killed or self.by_itself)

    @property
    def same_process(self) -> bool:
        """Whether the engine's process is the one that created the container."""
        return self.same_contact or self.history.created

    @property
    def ended_unseen(self) -> bool:
        """Whether it ended while no engine's process was there: the one of now neither created it nor saw it die.

        One that was just coming back tells of the end, but late: it was not there to take in what came before.
        """
        if self.state.seen_ending or self.same_process:
            return False
        if self.history.missed(self.state.ended_s):
            return True
        if self.history.died_s is None or self.state.ended_s is None:
            return False
        return self.history.died_s - self.state.ended_s > _TOLD_LATE_S

    @property
    def exit(self) -> ContainerExit:
        """How it ended, and by whom, where it may not have ended by itself."""
        code = self.state.exit_code
        if self.state.oom_killed or self.is_plain:
            return ContainerExit(code, oom_killed=self.state.oom_killed)
        if self.asked_before is not None:  # noted, and perhaps not done any more
            done = code >= SIGNAL_EXIT_BASE or self.history.kills
            return ContainerExit(code, asked=self.asked_before if done else None)
        if self.history.exit_code not in {None, code}:  # what held it is gone, and the engine took it for dead
            return ContainerExit(code, lost_with_engine=True)
        if self.same_process:
            return ContainerExit(code, killed_externally=self.history.kills > 0)
        return ContainerExit(code, lost_with_engine=self._taken_along)

    @property
    def _taken_along(self) -> bool:
        """Whether an engine that did not live through the run ended it.

        A dockerd that comes back without live-restore sends TERM to what it finds: a kill nobody saw it created for.
        And one that was stopped in order told of its kills, if that was heard; it leaves 137 and remembers nothing.
        """
        code, history = self.state.exit_code, self.history
        if self.state.killed or history.kills > 0:
            return True
        if code in _ENGINE_STOP_CODES:
            return not history.died
        return code == _UNKNOWN_CODE and history.missed(self.state.ended_s)
