"""Errors of the SDK in the port's words."""

import pytest
from docker.errors import APIError, DockerException, ImageNotFound, InvalidVersion, NotFound
from requests import Response
from requests.exceptions import ChunkedEncodingError, ConnectTimeout, ReadTimeout
from requests.exceptions import ConnectionError as RequestsConnectionError

from agp_agent.docker_engine.errors import told, translated
from agp_agent.engine import NameTaken
from agp_agent.errors import ContainerMissing, EngineError, EngineUnavailable, ImageUnavailable


def refusal(kind: type[APIError], status: int, sentence: str) -> APIError:
    """What the SDK raises for an answer."""
    response = Response()
    response.status_code = status
    return kind("x", response=response, explanation=sentence)


@pytest.mark.parametrize(
    ("error", "meaning"),
    [
        (refusal(NotFound, 404, "No such container: abc"), ContainerMissing),
        (refusal(NotFound, 404, "no container with name or ID abc found: no such container"), ContainerMissing),
        (refusal(ImageNotFound, 404, "No such image: x:1"), ImageUnavailable),
        (refusal(APIError, 409, 'Conflict. The container name "/a" is already in use by container "b".'), NameTaken),
        (refusal(APIError, 503, "starting"), EngineUnavailable),
        (refusal(NotFound, 404, "get v: no such volume"), EngineError),
        (
            refusal(APIError, 409, "can not get logs from container which is dead or marked for removal"),
            ContainerMissing,
        ),
        (refusal(APIError, 409, "volume is in use"), EngineError),
        (refusal(APIError, 500, "boom"), EngineError),
        (
            refusal(APIError, 500, 'connection error: desc = "dial unix x.sock: connection refused": unavailable'),
            EngineUnavailable,
        ),
        (refusal(APIError, 500, "transport is closing: unavailable: unknown"), EngineUnavailable),
        (refusal(APIError, 500, "the device is unavailable: no such device"), EngineError),
        (ReadTimeout("slow"), EngineUnavailable),
        (ConnectTimeout("slow"), EngineUnavailable),
        (RequestsConnectionError("reset"), EngineUnavailable),
        (ChunkedEncodingError("cut"), EngineUnavailable),
        (ConnectionResetError(104, "Connection reset by peer"), EngineUnavailable),
        (DockerException("Error while fetching server API version: x"), EngineUnavailable),
        (InvalidVersion("API versions below 1.24 are no longer supported"), EngineError),
    ],
)
def test_every_error_has_exactly_one_meaning(error: Exception, meaning: type[EngineError]) -> None:
    """Absent, gone, taken, no image, or the engine's own refusal."""
    assert type(translated(error, "unix:///x")) is meaning


def test_a_refusal_that_quotes_the_request_is_cut_in_its_middle() -> None:
    """Its beginning says what was done, its end what went wrong."""
    long = "opening seccomp profile failed: open {" + "x" * 9000 + "}: file name too long"
    sentence = str(translated(refusal(APIError, 500, long), "unix:///x"))
    assert sentence.startswith("the engine refused (500): opening seccomp profile failed")
    assert sentence.endswith("}: file name too long")
    assert len(sentence) < 700


def test_a_refusal_is_one_line_with_the_engines_words() -> None:
    """The status is there for whoever reads the engine's own log."""
    told_error = translated(refusal(APIError, 500, "first\n  second"), "unix:///x")
    assert str(told_error) == "the engine refused (500): first second"


@pytest.mark.parametrize(
    ("cause", "advice"),
    [
        (FileNotFoundError(2, "No such file or directory"), "set DOCKER_HOST"),
        (ConnectionRefusedError(111, "Connection refused"), "start it"),
        (PermissionError(13, "Permission denied"), "group docker"),
    ],
)
def test_an_absent_engine_comes_with_advice(cause: OSError, advice: str) -> None:
    """However deep the SDK has wrapped it."""
    wrapped = DockerException("Error while fetching server API version")
    wrapped.__cause__ = RequestsConnectionError("Connection aborted.", cause)
    sentence = str(translated(wrapped, "unix:///run/x.sock"))
    assert "unix:///run/x.sock" in sentence
    assert advice in sentence
    assert "\n" not in sentence


def test_a_timeout_says_so() -> None:
    """A stopped engine looks like that."""
    wrapped = DockerException("Error while fetching server API version")
    wrapped.__cause__ = ReadTimeout("x")
    for error in (ReadTimeout("x"), wrapped):
        assert "no answer in time" in str(translated(error, "tcp://x"))


def test_errors_that_go_in_circles_end() -> None:
    """A chain of causes that leads back to itself is followed once."""
    error = RequestsConnectionError("a")
    error.__context__ = ValueError("b")
    error.__context__.__context__ = error
    assert isinstance(translated(error, "x"), EngineUnavailable)


def test_told_translates_and_keeps_the_cause() -> None:
    """The original stays for the traceback; the port's own errors pass."""
    cause = ReadTimeout("x")
    with pytest.raises(EngineUnavailable) as caught, told("x"):
        raise cause
    assert caught.value.__cause__ is cause
    with pytest.raises(ContainerMissing), told("x"):
        raise ContainerMissing("gone")
