"""The shell runner: which interpreter a script gets."""

import pytest

from images.box import Boxes, started


@pytest.mark.parametrize(
    ("first_line", "shows", "expected"),
    [
        ("#!/bin/sh", "readlink /proc/$$/exe", "/usr/bin/dash"),
        ("#!/bin/bash", "readlink /proc/$$/exe", "/usr/bin/bash"),
        ("#!/usr/bin/env bash", "readlink /proc/$$/exe", "/usr/bin/bash"),
        ("#!   /usr/bin/env \t bash  ", "readlink /proc/$$/exe", "/usr/bin/bash"),
        ("# no shebang", "readlink /proc/$$/exe", "/usr/bin/bash"),
        ("#!", "readlink /proc/$$/exe", "/usr/bin/bash"),
        ("#!/bin/sh -eu", "echo $-", "ue"),
        ("#!/bin/bash -e", "case $- in *e*) echo errexit ;; esac", "errexit"),
        ("#!/usr/bin/env -S bash -e -u", 'case "$-" in *e*u*) echo both ;; esac', "both"),
        ("#!/bin/sh", "echo $0", "/playbook/playbook.sh"),
        ("#!/usr/bin/awk -f", 'BEGIN { print "awk" }', "awk"),
    ],
)
def test_the_first_line_decides(shell: Boxes, first_line: str, shows: str, expected: str) -> None:
    """It is read as the kernel reads it: an interpreter and one argument; without it bash runs the script."""
    finished = shell.run(f"{first_line}\n{shows}\n")

    assert (finished.text.strip(), finished.exit_code) == (expected, 0)


def test_everything_after_the_interpreter_is_one_argument(shell: Boxes) -> None:
    """As with the kernel, env is asked for a program named 'bash -e', and says how to ask better."""
    finished = shell.run("#!/usr/bin/env bash -e\necho ran\n")

    assert finished.exit_code == 127
    assert "bash -e" in finished.text
    assert "to pass options in shebang lines" in finished.text


def test_errexit_from_the_first_line_ends_the_script(shell: Boxes) -> None:
    """The options of the first line hold for the whole script."""
    finished = shell.run("#!/bin/sh -eu\nfalse\necho not reached\n")

    assert (finished.exit_code, finished.text) == (1, "")


def test_windows_line_endings_get_a_clear_sentence(shell: Boxes) -> None:
    """Instead of the shell's riddle about a file that does not exist."""
    with shell.open("#!/bin/bash\r\necho hi\r\n") as box:
        nonce = box.release()
        finished = box.finish()

    assert finished.exit_code == 126
    assert "Windows line ending, CRLF" in finished.text
    assert finished.text.count("\n") == 1
    assert finished.control == started(nonce)


@pytest.mark.parametrize(
    ("interpreter", "exit_code", "says"),
    [
        ("/usr/bin/no-such-shell", 127, "'/usr/bin/no-such-shell' in the first line of the script does not exist"),
        ("bash", 127, "has no path"),
        ("/etc/passwd", 126, "not a program that can be run"),
        ("/etc", 126, "not a program that can be run"),
    ],
)
def test_an_interpreter_that_cannot_be_run_gets_a_clear_sentence(
    shell: Boxes, interpreter: str, exit_code: int, says: str
) -> None:
    """127 for one that does not exist, 126 for one that is no program, as shells have it."""
    finished = shell.run(f"#!{interpreter}\necho hi\n")

    assert finished.exit_code == exit_code
    assert says in finished.text
    assert finished.text.count("\n") == 1


@pytest.mark.parametrize("script", ["echo one line", "\necho second line", "echo 'ü €'"])
def test_scripts_of_any_shape_run(shell: Boxes, script: str) -> None:
    """No newline at the end, an empty first line, letters beyond ASCII."""
    finished = shell.run(script)

    assert finished.exit_code == 0
    assert finished.text.strip() in script


def test_a_first_line_of_a_mebibyte_runs(shell: Boxes) -> None:
    """The longest playbook that the agent takes, in one line."""
    finished = shell.run(f"echo {'x' * (2**20 - 100)}")

    assert finished.exit_code == 0
    assert len(finished.output) == 2**20 - 99


def test_the_tools_that_the_readme_names_are_there(shell: Boxes) -> None:
    """Each of them is found on the PATH."""
    tools = (
        "awk bash bc bzip2 curl cut dash diff envsubst find grep gzip ip jq nc ps rsync sed sh ssh scp tar unzip xz zip"
    )
    finished = shell.run(f"for tool in {tools}; do command -v $tool >/dev/null || echo $tool; done")

    assert (finished.exit_code, finished.text) == (0, "")


def test_ssh_knows_who_it_is(shell: Boxes) -> None:
    """The client refuses to work for a uid without an account; here it makes a key and reads its settings."""
    finished = shell.run("ssh-keygen -q -t ed25519 -N '' -f /work/key && ssh -G example.invalid 2>&1 | grep '^user '")

    assert (finished.exit_code, finished.text.strip()) == (0, "user task20007")


def test_programs_cannot_be_started_from_the_writable_places(shell: Boxes) -> None:
    """A copied program does not run, while the interpreter may read a script from there."""
    finished = shell.run(
        "cp /usr/bin/true /work/t; /work/t 2>/dev/null; echo $?; echo 'echo read' >/work/s; sh /work/s"
    )

    assert finished.text.split() == ["126", "read"]
