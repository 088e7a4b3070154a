"""What all runner images have in common."""

import docker
import pytest

from agp_agent import __version__
from images.box import TASK_UID, Boxes

FIRST_UID, LAST_UID = 20000, 20255


def test_the_labels_say_what_the_image_is(client: docker.DockerClient, runner: Boxes) -> None:
    """Title, version, licence, revision and contract can be read without starting anything."""
    labels = client.images.get(runner.image).labels

    assert labels["org.opencontainers.image.title"] == runner.image.partition(":")[0]
    assert labels["org.opencontainers.image.version"] == __version__
    assert labels["org.opencontainers.image.licenses"] == "Apache-2.0"
    assert labels["org.opencontainers.image.description"]
    assert labels["org.opencontainers.image.revision"]
    assert labels["agp.runner.contract"] == "1"


@pytest.mark.parametrize("name", ["shell", "python", "ansible"])
def test_latest_is_the_project_version(client: docker.DockerClient, name: str) -> None:
    """Both tags name the same image."""
    image = f"agp/runner-{name}"

    assert client.images.get(f"{image}:latest").id == client.images.get(f"{image}:{__version__}").id


def test_the_configuration_is_safe_for_whoever_starts_it_by_hand(client: docker.DockerClient, runner: Boxes) -> None:
    """A numeric user that is not root, the entry in exec form, the runner's command, no volumes and no ports."""
    config = client.images.get(runner.image).attrs["Config"]

    assert config["User"] == f"{FIRST_UID}:{FIRST_UID}"
    assert config["Entrypoint"] == ["/usr/local/bin/agp-entry"]
    assert config["Cmd"] == list(runner.command)
    assert config["WorkingDir"] == "/work"
    assert not config.get("Volumes")
    assert not config.get("ExposedPorts")
    assert {"HOME=/work", "LANG=C.UTF-8"} <= set(config["Env"])


def test_every_uid_of_the_range_has_an_account(runner: Boxes) -> None:
    """Name, group and home exist for each of them, and for no uid beyond."""
    users = runner.look("grep ^task /etc/passwd | cut -d: -f1,3,4,6").text.split()
    groups = runner.look("grep ^task /etc/group | cut -d: -f1,3").text.split()

    assert users == [f"task{uid}:{uid}:{uid}:/work" for uid in range(FIRST_UID, LAST_UID + 1)]
    assert groups == [f"task{uid}:{uid}" for uid in range(FIRST_UID, LAST_UID + 1)]


@pytest.mark.parametrize("uid", [FIRST_UID, LAST_UID])
def test_a_task_runs_as_the_uid_it_was_given_at_home_in_work(runner: Boxes, uid: int) -> None:
    """The account at either end of the range works."""
    seen = runner.look('id -un; id -gn; id -G; pwd; echo "$HOME"', uid=uid)

    assert seen.text.split() == [f"task{uid}", f"task{uid}", str(uid), "/work", "/work"]


def test_no_program_lends_rights(runner: Boxes) -> None:
    """No file is setuid or setgid, and none has capabilities, as far as the image has a tool to tell."""
    seen = runner.look("find / -xdev -type f -perm /6000 2>/dev/null; getcap -r / 2>/dev/null; true")

    assert (seen.exit_code, seen.text) == (0, "")


def test_only_tmp_and_work_can_be_written(runner: Boxes) -> None:
    """Everywhere else a file cannot be made."""
    script = "for d in / /etc /home /opt /playbook /root /run /srv /tmp /usr /var/tmp /work; do \
        (: >$d/probe) 2>/dev/null && echo $d; done; true"

    assert runner.look(script).text.split() == ["/tmp", "/work"]


def test_the_folder_of_the_playbook_is_a_mount_point(runner: Boxes) -> None:
    """It exists in the image, empty, readable for everybody."""
    assert runner.look("ls -A /work; stat -c '%a' /playbook").text.split() == ["755"]


def test_localhost_and_the_host_name_resolve_without_a_network(runner: Boxes) -> None:
    """Programs that look themselves up find loopback, although the engine leaves /etc/hosts empty."""
    script = "hostname; for name in localhost runner; do getent ahosts $name >/dev/null && echo $name; done; true"

    assert runner.look(script).text.split() == ["runner", "localhost", "runner"]


def test_there_is_no_network_but_loopback(runner: Boxes) -> None:
    """The container's own network namespace holds one device."""
    assert runner.look("ls /sys/class/net").text.split() == ["lo"]


def test_the_package_lists_and_caches_are_gone(runner: Boxes) -> None:
    """Nothing is carried that no playbook can use."""
    script = "find /var/lib/apt/lists /var/cache/apt /usr/share/man /usr/share/info -type f ! -name lock | head"

    assert runner.look(script).text == ""


def test_the_lockdown_leaves_no_capability(runner: Boxes) -> None:
    """All five sets are empty, and none can be gained."""
    script = "grep -E '^(Cap|NoNewPrivs)' /proc/self/status"
    lines = dict(line.split(":\t") for line in runner.look(script, uid=TASK_UID).text.splitlines())

    assert lines.pop("NoNewPrivs") == "1"
    assert {int(value, 16) for value in lines.values()} == {0}
