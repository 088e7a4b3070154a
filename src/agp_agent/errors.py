"""Everything that can go wrong, as a tree. Each message is one sentence an operator or a client can act on.

AgentError
├── ConfigurationError        what the operator wrote cannot be used (exit code 78)
│   └── StateDirectoryError   the state directory cannot be used by this agent
│       └── JournalDamaged    its journal cannot be read; it is set aside and rebuilt
├── Refused                   a request that was not accepted; nothing ran and nothing changed
│   ├── InvalidBody           400
│   ├── Unauthorized          401
│   ├── BodyTimeout           408
│   ├── AlreadyRunning        409
│   ├── TooLarge              413
│   ├── UnsupportedMediaType  415
│   └── Unavailable           503, with Retry-After
└── EngineError               the container engine did not do what was asked
    ├── EngineUnavailable     it does not answer: try again later
    ├── EngineReplaced        its socket was made anew under a mount: only the next start finds it
    ├── ImageUnavailable      the runner's image cannot be had
    ├── ContainerMissing      the container is gone
    ├── SecretUnavailable     a secret of the runner cannot be read
    ├── LockdownRefused       the engine made a container that is weaker than what was asked for
    └── NotFenced             a container's network could not be fenced in, so it is not released
"""

from typing import ClassVar


class AgentError(Exception):
    """The root of all errors the agent raises itself."""


class ConfigurationError(AgentError):
    """What the operator wrote cannot be used; ``problems`` holds all of them, one sentence each."""

    def __init__(self, *problems: str) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class StateDirectoryError(ConfigurationError):
    """The state directory cannot be used by this agent: held by another, unwritable, or of another owner."""


class JournalDamaged(StateDirectoryError):
    """The journal's file cannot be read as one."""


class Refused(AgentError):
    """A request that was not accepted. The message is the ``detail`` of the answer."""

    status: ClassVar[int]
    headers: ClassVar[dict[str, str]] = {}

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail


class InvalidBody(Refused):
    """The body is not what the contract says."""

    status = 400


class Unauthorized(Refused):
    """The token is missing or wrong; the answer never tells which."""

    status = 401
    headers: ClassVar[dict[str, str]] = {"WWW-Authenticate": "Bearer"}


class BodyTimeout(Refused):
    """The body did not arrive within its deadline."""

    status = 408
    headers: ClassVar[dict[str, str]] = {"Connection": "close"}


class AlreadyRunning(Refused):
    """To the dashboard this task is running: its result is not acknowledged yet."""

    status = 409


class TooLarge(Refused):
    """The body or the playbook is larger than the agent accepts."""

    status = 413
    headers: ClassVar[dict[str, str]] = {"Connection": "close"}


class UnsupportedMediaType(Refused):
    """The body is not declared as JSON."""

    status = 415


class Unavailable(Refused):
    """The agent cannot accept this now: queue full, draining, or unable to write durably."""

    status = 503
    headers: ClassVar[dict[str, str]] = {"Retry-After": "5"}


class EngineError(AgentError):
    """The container engine did not do what was asked."""


class EngineUnavailable(EngineError):
    """The engine does not answer. What was asked may or may not have happened."""


class EngineReplaced(EngineError):
    """The engine has made its socket anew, and a mount shows this process the old one: only its next start helps."""


class ImageUnavailable(EngineError):
    """The runner's image is not on the engine and could not be pulled; ``why`` is the reason without its name."""

    def __init__(self, message: str, why: str | None = None) -> None:
        super().__init__(message)
        self.why = why or message


class ContainerMissing(EngineError):
    """The container is gone: removed by someone else."""


class SecretUnavailable(EngineError):
    """A secret of the runner cannot be read, or may not be used as it is; the playbook has not started."""


class LockdownRefused(EngineError):
    """The engine made a container that is weaker than what was asked for, or says that it would."""


class NotFenced(EngineError):
    """A container's network could not be fenced in: its playbook never started, and will not."""
