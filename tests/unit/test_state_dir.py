"""The state directory and who holds it."""

import json
import re
import socket
import stat
from pathlib import Path

import pytest

from agp_agent.errors import StateDirectoryError
from agp_agent.state_dir import Identity, StateDir


def test_a_new_directory_gets_its_folders_and_an_identity(tmp_path: Path) -> None:
    """All private; the instance is random, the name the host's."""
    with StateDir(tmp_path / "a/b") as state:
        assert re.fullmatch("[0-9a-f]{12}", state.identity.instance)
        assert re.fullmatch("[A-Za-z0-9][A-Za-z0-9._-]*", state.identity.agent_id)
        for path in (state.path, state.spool, state.slots):
            assert stat.S_IMODE(path.stat().st_mode) == 0o700
        names = {path.name for path in (state.spool, state.slots, state.journal, state.audit)}
        assert names == {"spool", "slots", "journal.db", "audit.jsonl"}
        assert stat.S_IMODE((state.path / "agent.lock").stat().st_mode) == 0o600


def test_the_identity_stays_over_restarts(tmp_path: Path) -> None:
    """The name of the first start holds, whatever the host is called later."""
    with StateDir(tmp_path, "rack-7") as state:
        first = state.identity
    with StateDir(tmp_path) as state:
        assert state.identity == first
    with StateDir(tmp_path, "rack-7") as state:
        assert state.identity == first


def test_two_directories_are_two_instances(tmp_path: Path) -> None:
    """Agents of one name never touch each other's containers."""
    with StateDir(tmp_path / "a", "x") as one, StateDir(tmp_path / "b", "x") as other:
        assert one.identity.instance != other.identity.instance
        assert one.identity.labels == {"agp.agent_id": "x", "agp.instance": one.identity.instance}


def test_a_second_agent_is_refused_until_the_first_lets_go(tmp_path: Path) -> None:
    """The sentence says what to do; nothing of the first agent's is touched."""
    with StateDir(tmp_path, "x") as first:
        with pytest.raises(StateDirectoryError, match=r"another agent is running .* give this one another"):
            StateDir(tmp_path, "x")
        assert first.identity.agent_id == "x"
    StateDir(tmp_path, "x").close()


def test_a_refused_agent_does_not_keep_the_lock_file_open(tmp_path: Path) -> None:
    """No descriptor is left behind."""
    with StateDir(tmp_path):
        before = len(list(Path("/proc/self/fd").iterdir()))
        with pytest.raises(StateDirectoryError):
            StateDir(tmp_path)
        assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_another_agents_directory_is_refused(tmp_path: Path) -> None:
    """Both names are told."""
    StateDir(tmp_path, "one").close()
    with pytest.raises(StateDirectoryError, match=r"belongs to agent 'one', not to 'two'; give AGP_AGENT_ID"):
        StateDir(tmp_path, "two")


@pytest.mark.parametrize("text", ["{", "[]", "null", '{"agent_id": "x"}', "\x00"])
def test_a_lock_file_that_is_not_ours_is_refused(tmp_path: Path, text: str) -> None:
    """It is not overwritten either."""
    lock = tmp_path / "agent.lock"
    lock.write_text(text)
    with pytest.raises(StateDirectoryError, match=r"agent\.lock: not written by an agent"):
        StateDir(tmp_path)
    assert lock.read_text() == text


def test_a_place_that_cannot_be_a_directory_is_one_sentence(tmp_path: Path) -> None:
    """It names the path, the system's reason, and the setting."""
    (tmp_path / "file").write_text("")
    with pytest.raises(StateDirectoryError, match=r"file/x: .* Not a directory; give AGP_STATE_DIR"):
        StateDir(tmp_path / "file/x")


def test_a_lock_that_is_a_link_is_not_followed(tmp_path: Path) -> None:
    """Nor is anything made beside it: it leads to a file of somebody else's choice."""
    (tmp_path / "state").mkdir()
    (tmp_path / "state/agent.lock").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StateDirectoryError, match="cannot be used"):
        StateDir(tmp_path / "state")
    assert not (tmp_path / "elsewhere").exists()
    assert [path.name for path in (tmp_path / "state").iterdir()] == ["agent.lock"]


def test_closing_twice_is_as_closing_once(tmp_path: Path) -> None:
    """Idempotent; and the path is absolute whatever was given."""
    state = StateDir(tmp_path / "x" / ".." / "y")
    state.close()
    state.close()
    assert state.path.is_absolute()


def test_the_lock_file_holds_the_identity_as_json(tmp_path: Path) -> None:
    """People and tools can read whose it is."""
    with StateDir(tmp_path, "x") as state:
        text = json.loads((tmp_path / "agent.lock").read_text())
    assert Identity(**text) == state.identity


def test_the_default_name_is_a_legal_one_of_this_host(tmp_path: Path) -> None:
    """It becomes part of headers and labels."""
    with StateDir(tmp_path) as state:
        cleaned = re.sub(r"[^A-Za-z0-9._-]", "-", socket.gethostname()).strip("._-")[:128]
        assert state.identity.agent_id == (cleaned or "agent")
