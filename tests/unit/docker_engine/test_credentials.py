"""Registry credentials out of Docker's configuration file, and out of the helpers that it names."""

import base64
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from agp_agent.docker_engine.credentials import CredentialsUnusable, header_for

REGISTRY = "registry.test:5000"
INDEX = "https://index.docker.io/v1/"


@pytest.fixture
def docker_config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that DOCKER_CONFIG names, with an empty home behind it."""
    folder = tmp_path / "docker"
    folder.mkdir()
    monkeypatch.setenv("DOCKER_CONFIG", str(folder))
    monkeypatch.setenv("HOME", str(tmp_path))
    return folder


def write(folder: Path, document: object) -> None:
    """Docker's configuration file."""
    text = document if isinstance(document, str) else json.dumps(document)
    (folder / "config.json").write_text(text)


def auth(user: str, password: str) -> dict[str, str]:
    """An entry as `docker login` writes it."""
    return {"auth": base64.b64encode(f"{user}:{password}".encode()).decode()}


def sent_to(registry: str) -> dict[str, Any] | None:
    """What the engine would be told for a registry."""
    header = header_for(registry)
    return None if header is None else json.loads(base64.urlsafe_b64decode(header))


def add_helper(folder: Path, monkeypatch: pytest.MonkeyPatch, name: str, script: str) -> None:
    """A credential helper on the PATH, in Python."""
    program = folder / f"docker-credential-{name}"
    program.write_text(f"#!{sys.executable}\nimport json, os, sys\nasked = sys.stdin.read()\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=":")


def test_no_file_is_no_credentials(docker_config: Path) -> None:
    """Public images need none."""
    assert not (docker_config / "config.json").exists()
    assert sent_to(REGISTRY) is None


@pytest.mark.parametrize("document", [{}, {"auths": {}}, {"currentContext": "x", "auths": {"other.test": {}}}])
def test_a_file_without_this_registry_is_no_credentials(docker_config: Path, document: object) -> None:
    """Another registry's password is never sent."""
    write(docker_config, document)
    assert sent_to(REGISTRY) is None


@pytest.mark.parametrize("key", [REGISTRY, f"https://{REGISTRY}", f"http://{REGISTRY}/v2/"])
def test_the_entry_of_the_registry_is_sent(docker_config: Path, key: str) -> None:
    """In each spelling that Docker's tools have written over the years; a password may hold colons."""
    write(docker_config, {"auths": {"other.test": auth("a", "b"), key: auth("agent", "pass:word")}})
    sent = sent_to(REGISTRY)
    assert sent is not None
    assert (sent["username"], sent["password"]) == ("agent", "pass:word")


@pytest.mark.parametrize("key", [INDEX, "docker.io", "index.docker.io"])
def test_the_entry_of_docker_hub_is_sent(docker_config: Path, key: str) -> None:
    """Whose name in the file is an address of long ago."""
    write(docker_config, {"auths": {key: auth("agent", "hub")}})
    sent = sent_to("docker.io")
    assert sent is not None
    assert sent["password"] == "hub"


def test_an_identity_token_is_sent_instead_of_a_password(docker_config: Path) -> None:
    """As `docker login` writes it where the registry gave one."""
    write(docker_config, {"auths": {REGISTRY: {"auth": "ignored", "identitytoken": "a-token"}}})
    assert sent_to(REGISTRY) == {"IdentityToken": "a-token"}


def test_a_changed_file_counts_from_the_next_pull_on(docker_config: Path) -> None:
    """A rotation needs no restart."""
    for password in ("old", "new"):
        write(docker_config, {"auths": {REGISTRY: auth("agent", password)}})
        sent = sent_to(REGISTRY)
        assert sent is not None
        assert sent["password"] == password


@pytest.mark.parametrize(
    ("document", "why"),
    [
        ("{", "is not valid JSON"),
        ("[]", "is not a JSON object"),
        ({"auths": {REGISTRY: {"auth": "not base64!"}}}, "its auths are not as `docker login` writes them"),
        ({"auths": {REGISTRY: {"auth": "bm9jb2xvbg=="}}}, "its auths are not as `docker login` writes them"),
        ({"auths": {REGISTRY: "text"}}, "its auths are not as `docker login` writes them"),
        ({"auths": ["text"]}, "its auths are not as `docker login` writes them"),
    ],
)
def test_a_file_that_cannot_be_used_is_told(docker_config: Path, document: object, why: str) -> None:
    """With its path and what is wrong, and never with what stands in it."""
    write(docker_config, document)
    with pytest.raises(CredentialsUnusable) as told:
        header_for(REGISTRY)
    assert str(docker_config / "config.json") in str(told.value)
    assert why in str(told.value)
    assert "bm9jb2xvbg" not in str(told.value)


def test_a_file_that_cannot_be_read_is_told(docker_config: Path) -> None:
    """A folder in its place, for root may read any file."""
    (docker_config / "config.json").mkdir()
    with pytest.raises(CredentialsUnusable, match=r"config\.json cannot be read: Is a directory"):
        header_for(REGISTRY)


@pytest.mark.parametrize("document", [{"credsStore": "test"}, {"credHelpers": {REGISTRY: "test"}, "credsStore": "no"}])
def test_a_helper_is_asked(docker_config: Path, monkeypatch: pytest.MonkeyPatch, document: object) -> None:
    """That of the registry before that of all; it is told the registry, and nothing of the agent's own secrets."""
    monkeypatch.setenv("AGP_TOKEN", "a-secret-of-the-agent")
    script = "print(json.dumps({'Username': asked, 'Secret': str('AGP_TOKEN' in os.environ)}))"
    add_helper(docker_config, monkeypatch, "test", script)
    write(docker_config, document)
    assert sent_to(REGISTRY) == {"ServerAddress": REGISTRY, "Username": REGISTRY, "Password": "False"}


def test_a_helper_is_asked_for_docker_hub_by_its_old_address(
    docker_config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under which helpers keep it; a token is sent as one."""
    script = f"print(json.dumps({{'Username': '<token>', 'Secret': str(asked == {INDEX!r})}}))"
    add_helper(docker_config, monkeypatch, "test", script)
    write(docker_config, {"credHelpers": {INDEX: "test"}})
    assert sent_to("docker.io") == {"ServerAddress": INDEX, "IdentityToken": "True"}


def test_what_a_helper_does_not_have_may_stand_in_the_file(
    docker_config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As Docker's own tools look there too."""
    add_helper(docker_config, monkeypatch, "test", "sys.exit('credentials not found in native keychain')")
    write(docker_config, {"credsStore": "test", "auths": {REGISTRY: auth("agent", "from the file")}})
    sent = sent_to(REGISTRY)
    assert sent is not None
    assert sent["password"] == "from the file"


def test_a_missing_helper_is_told(docker_config: Path) -> None:
    """With what to do; the pull is not tried without credentials that the operator named."""
    write(docker_config, {"credsStore": "nowhere"})
    with pytest.raises(CredentialsUnusable) as told:
        header_for(REGISTRY)
    assert str(told.value) == (
        f"{docker_config}/config.json names the credential helper docker-credential-nowhere, and there is no such "
        "program on the agent's PATH: install it, or keep the credentials in auths"
    )


@pytest.mark.parametrize(
    ("script", "why"),
    [
        ("sys.exit('the keychain is locked')", "failed with exit code 1: the keychain is locked"),
        ("sys.exit(3)", "failed with exit code 3: it said nothing on stderr"),
        ("print('hello')", "did not answer with JSON"),
        ("print('[]')", "gave no Username and Secret"),
        ("os.write(1, bytes([255]))", "did not answer in UTF-8"),
    ],
)
def test_a_helper_that_fails_is_told(
    docker_config: Path, monkeypatch: pytest.MonkeyPatch, script: str, why: str
) -> None:
    """In its own words where it has some."""
    add_helper(docker_config, monkeypatch, "test", script)
    write(docker_config, {"credsStore": "test"})
    with pytest.raises(CredentialsUnusable, match=why):
        header_for(REGISTRY)


@pytest.mark.parametrize("said", ["", "the keychain broke"])
def test_what_a_failing_helper_printed_on_stdout_is_never_told(
    docker_config: Path, monkeypatch: pytest.MonkeyPatch, said: str
) -> None:
    """It is the secret where the helper fails after it has answered; the message goes to the task's result."""
    answer = "print(json.dumps({'Username': 'agent', 'Secret': 'hunter2-secret'}))"
    add_helper(docker_config, monkeypatch, "test", f"{answer}\nsys.exit({said!r} or 1)")
    write(docker_config, {"credsStore": "test"})
    with pytest.raises(CredentialsUnusable) as told:
        header_for(REGISTRY)
    assert str(told.value).endswith(f"failed with exit code 1: {said or 'it said nothing on stderr'}")


def test_a_long_complaint_of_a_helper_is_cut(docker_config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A task's error is one sentence."""
    add_helper(docker_config, monkeypatch, "test", "sys.exit('x' * 10_000)")
    write(docker_config, {"credsStore": "test"})
    with pytest.raises(CredentialsUnusable) as told:
        header_for(REGISTRY)
    assert str(told.value).endswith(f": {'x' * 200}")


def test_a_helper_may_say_on_stdout_that_it_has_none(docker_config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where Docker's own helpers print their errors."""
    add_helper(docker_config, monkeypatch, "test", "print('credentials not found in native keychain')\nsys.exit(1)")
    write(docker_config, {"credsStore": "test"})
    assert sent_to(REGISTRY) is None


def test_a_helper_that_cannot_be_started_is_told(docker_config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program of another machine's kind."""
    add_helper(docker_config, monkeypatch, "test", "")
    (docker_config / "docker-credential-test").write_bytes(b"\x7fELF no program")
    write(docker_config, {"credsStore": "test"})
    with pytest.raises(CredentialsUnusable, match=r"cannot be run: .*Exec format error"):
        header_for(REGISTRY)


def test_a_helper_that_hangs_is_given_up(docker_config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would else hold one of the engine's threads for ever."""
    monkeypatch.setattr("agp_agent.docker_engine.credentials._HELPER_TIMEOUT_S", 0.2)
    add_helper(docker_config, monkeypatch, "test", "import time; time.sleep(60)")
    write(docker_config, {"credsStore": "test"})
    with pytest.raises(CredentialsUnusable, match=r"did not answer within 0\.2 s"):
        header_for(REGISTRY)
