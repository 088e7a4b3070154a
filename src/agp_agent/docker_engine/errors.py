"""What the SDK raises, told in the port's errors: one sentence each, with what to do where that is known."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

from docker.errors import APIError, DockerException, ImageNotFound, InvalidVersion
from requests.exceptions import RequestException, Timeout

from agp_agent.engine import NameTaken
from agp_agent.errors import ContainerMissing, EngineError, EngineUnavailable, ImageUnavailable

CONFLICT = 409
_NOT_FOUND = 404
_GATEWAY_ERRORS = (502, 503, 504)
_SENTENCE_CHARS = 600
_RUNTIME_AWAY = re.compile(r": unavailable(: unknown)?$")
"""How the engine's sentence ends when it is its container runtime that does not answer: dockerd says 500 then."""


@contextmanager
def told(address: object) -> Iterator[None]:
    """Turn every error of the SDK, of requests and of sockets into one of the port's."""
    try:
        yield
    except (DockerException, RequestException, OSError) as error:
        raise translated(error, address) from error


def translated(error: Exception, address: object) -> EngineError:
    """Say in the port's words what an error of the SDK means. ``address`` names the engine."""
    if isinstance(error, APIError):
        return _refusal(error)
    if isinstance(error, InvalidVersion):
        return EngineError(f"the engine at {address} is too old for this agent ({error}): update it")
    return EngineUnavailable(f"the engine does not answer at {address}: {_reason(error)}")


def explanation(error: APIError) -> str:
    """The engine's own sentence, without what is too long for one: some quote the whole request."""
    sentence = " ".join(str(error.explanation or error).split())
    left_out = len(sentence) - _SENTENCE_CHARS
    if left_out <= 0:
        return sentence
    half = _SENTENCE_CHARS // 2
    return f"{sentence[:half]} [{left_out} characters] {sentence[-half:]}"


def _refusal(error: APIError) -> EngineError:
    status = error.status_code
    sentence = explanation(error)
    if status in _GATEWAY_ERRORS or _RUNTIME_AWAY.search(sentence):
        return EngineUnavailable(f"the engine cannot answer now: {sentence}")
    if isinstance(error, ImageNotFound):
        return ImageUnavailable(f"the image is not on the engine: {sentence}")
    if status == _NOT_FOUND and "no such container" in sentence.lower():
        return ContainerMissing(f"the container is gone: {sentence}")
    if status == CONFLICT and "marked for removal" in sentence:
        return ContainerMissing(f"the container is being removed: {sentence}")
    if status == CONFLICT and "already in use by container" in sentence:
        return NameTaken(f"the container's name is taken: {sentence}")
    return EngineError(f"the engine refused ({status}): {sentence}")


def _reason(error: Exception) -> str:
    """The innermost thing that went wrong, and what to do about it."""
    causes = _causes(error)
    if any(isinstance(cause, Timeout) for cause in causes):
        return "no answer in time; it may be overloaded or stopped"
    for cause in causes:
        match cause:
            case FileNotFoundError() | ConnectionRefusedError():
                return f"{cause.strerror}; start it, or set DOCKER_HOST to where it listens"
            case PermissionError():
                return f"{cause.strerror}; run the agent as a user who may open its socket (group docker)"
            case OSError(strerror=str() as sentence):  # requests fills it with other things too
                return sentence
    return " ".join(str(error).split())


def _causes(error: BaseException) -> list[BaseException]:
    """An error, those in its arguments, and those that led to it: the SDK wraps them many times over."""
    found = [error]
    for one in found:
        inner = (*one.args, getattr(one, "reason", None), one.__cause__, one.__context__)
        found += [cause for cause in inner if isinstance(cause, BaseException) and cause not in found]
    return found
