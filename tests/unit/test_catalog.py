"""The catalog: which runner takes a playbook, and what an operator may write."""

from pathlib import Path
from textwrap import dedent

import pytest

from agp_agent import __version__, catalog
from agp_agent.catalog import Catalog, Runner
from agp_agent.engine import PullPolicy, Tmpfs
from agp_agent.errors import ConfigurationError

PLAYS = "- hosts: all\n  tasks: []\n"


@pytest.fixture
def built_in() -> Catalog:
    """The runners that come with the agent."""
    return catalog.load()


def chosen(of: Catalog, name: str, content: str = "x\n") -> str | None:
    """Return the name of the runner that takes a playbook."""
    runner = of.choose(name, content)
    return runner.name if runner else None


def loaded(folder: Path, text: str) -> Catalog:
    """Return the built-in catalog with an operator's laid over it."""
    file = folder / "catalog.yaml"
    file.write_text(dedent(text))
    return catalog.load(file)


def problems(folder: Path, text: str) -> list[str]:
    """Return the sentences with which an operator's catalog is refused, without the file's name."""
    with pytest.raises(ConfigurationError) as caught:
        loaded(folder, text)
    start = f"AGP_CATALOG: {folder / 'catalog.yaml'}: "
    assert all(problem.startswith(start) for problem in caught.value.problems)
    return [problem.removeprefix(start) for problem in caught.value.problems]


@pytest.mark.parametrize(
    ("name", "content", "runner"),
    [
        ("a.sh", "x", "shell"),
        ("a.bash", "x", "shell"),
        ("A.SH", "x", "shell"),
        ("a.py", "x", "python"),
        ("a.yml", "x", "ansible"),
        ("a.yaml", "x", "ansible"),
        ("../../etc/passwd.yml", "x", "ansible"),
        ("a.sh", "#!/usr/bin/python3\n", "shell"),
        ("a.py", PLAYS, "python"),
        ("a", "#!/bin/sh\n", "shell"),
        ("a", "#!/bin/sh", "shell"),
        ("a", "#! /bin/bash -eu\n", "shell"),
        ("a", "#!/usr/bin/env bash\n", "shell"),
        ("a", "#!/usr/bin/env python3\n", "python"),
        ("a", "#!/usr/bin/env -S python3.12 -u\n", "python"),
        ("a", "\ufeff#!/usr/bin/python3.11\r\n", "python"),
        ("a", "#!/usr/bin/env ansible-playbook\n- foo: bar\n", "ansible"),
        ("a.txt", "#!/usr/bin/dash\n", "shell"),
        ("a", PLAYS, "ansible"),
        ("a", "---\n# comment\n\n" + PLAYS, "ansible"),
        ("a", "%YAML 1.2\n---\n" + PLAYS, "ansible"),
        ("a", "\ufeff" + PLAYS, "ansible"),
        ("a", "- name: web\n  hosts: web\n", "ansible"),
        ("a", '- name: web\n  "hosts" : web\n', "ansible"),
        ("a", "-\n  hosts: all\n", "ansible"),
        ("a", "- import_playbook: other.yml\n", "ansible"),
        ("a", "- ansible.builtin.import_playbook: other.yml\n", "ansible"),
        ("a", "- name: x\r\n  hosts: all\r\n", "ansible"),
        ("a", "hosts: all\n", None),
        ("a", "- one\n- two\n", None),
        ("a", "echo hosts: all\n- hosts: all\n", None),
        ("a", "#!/usr/bin/ruby\n", None),
        ("a", "#!\n", None),
        ("a", "#!/usr/bin/env\n", None),
        ("a", "# /bin/sh\n", None),
        ("a", "", None),
        ("a.exe", "MZ", None),
        (".sh", "x", None),
        ("sh", "x", None),
        ("a.sh.txt", "x", None),
    ],
)
def test_the_runner_follows_from_suffix_then_shebang_then_plays(
    built_in: Catalog, name: str, content: str, runner: str | None
) -> None:
    """The suffix of the name first; the content is only looked at."""
    assert chosen(built_in, name, content) == runner


def test_only_the_beginning_of_a_playbook_is_looked_at(built_in: Catalog) -> None:
    """A play far down in a large file does not count, and costs nothing."""
    assert chosen(built_in, "a", "- name: x\n" + " # filler\n" * 10_000 + "  hosts: all\n") is None


def test_a_yaml_bomb_is_not_loaded(built_in: Catalog) -> None:
    """Choosing looks at lines; what would explode a parser is text like any other."""
    bomb = "- a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(f"- b{n}: &b{n} [*b{n - 1},*b{n - 1}]\n" for n in range(1, 99))
    assert chosen(built_in, "a", bomb) is None


def test_the_built_in_runners_are_of_the_agents_own_version(built_in: Catalog) -> None:
    """Images and agent are released together."""
    assert built_in.names == ["shell", "python", "ansible"]
    for name, runner in built_in.runners.items():
        assert runner.image == f"agp/runner-{name}:{__version__}"
        assert runner.pull is PullPolicy.MISSING
        assert runner.memory == 512 * 2**20
    assert built_in.runners["ansible"].tmpfs["/work"] == Tmpfs(256 * 2**20, executable=True)
    assert built_in.runners["shell"].tmpfs["/work"] == Tmpfs(256 * 2**20)


def test_an_operators_runner_replaces_the_built_in_one_of_its_name_and_others_are_added(tmp_path: Path) -> None:
    """Everything DESIGN lists for this issue can be said."""
    merged = loaded(
        tmp_path,
        """
        runners:
          shell:
            image: registry.example/shell@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef
            pull: never
            match: {suffixes: [.sh], shebangs: [sh]}
            command: [sh, -eu, "{playbook}"]
            timeout_s: 60
            max_running: 2
            memory: 64MiB
            cpus: 0.5
            pids: 32
            tmpfs: {/tmp: 1MiB, /work: {size: 2 MiB, exec: true}}
            env: {GREETING: hello}
          ruby:
            image: ruby
            match: {suffixes: [.rb], shebangs: [ruby]}
            command: [ruby, "{playbook}"]
            memory: 1GiB
        """,
    )
    assert merged.names == ["shell", "python", "ansible", "ruby"]
    shell = merged.runners["shell"]
    assert (shell.image, shell.pull, shell.timeout_s) == (
        f"registry.example/shell@sha256:{'0123456789abcdef' * 4}",
        PullPolicy.NEVER,
        60,
    )
    assert (shell.max_running, shell.memory, shell.cpus, shell.pids) == (2, 64 * 2**20, 0.5, 32)
    assert shell.tmpfs == {"/tmp": Tmpfs(2**20), "/work": Tmpfs(2 * 2**20, executable=True)}
    assert shell.env == {"GREETING": "hello"}
    assert chosen(merged, "a.rb") == "ruby"
    assert chosen(merged, "a.bash") is None
    assert merged.largest_memory_bytes == 2**30


@pytest.mark.parametrize(
    ("size", "size_bytes"),
    [("16777216", 2**24), ("16777216B", 2**24), ("16384KiB", 2**24), ("16 MiB", 2**24), ("1GiB", 2**30)],
)
def test_sizes_have_units(size: str, size_bytes: int) -> None:
    """A bare number is bytes."""
    runner = Runner.model_validate({"name": "x", "image": "x", "command": ["{playbook}"], "memory": size})
    assert runner.memory == size_bytes


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("imag: x", "runner x, imag: is not a known key."),
        ('image: ""', "runner x, image: must not be empty."),
        ("image: 5", "runner x, image: expected text."),
        ("pull: sometimes", "runner x, pull: expected: 'never', 'missing' or 'always'."),
        (
            "match: {suffixes: [yml]}",
            r"runner x, match.suffixes.0: expected: String should match pattern '^\.[a-z0-9]+$'.",
        ),
        ("match: {shebangs: [/bin/sh]}", None),
        ("match: {play: true}", "runner x, match.play: is not a known key."),
        ("match: all", None),
        ('command: [sh, "playbook.sh"]', 'runner x, command: expected a list of words, one of them "{playbook}".'),
        ("command: sh", None),
        ("command: []", 'runner x, command: expected a list of words, one of them "{playbook}".'),
        ("timeout_s: 0", "runner x, timeout_s: expected: greater than 0."),
        ("timeout_s: .inf", "runner x, timeout_s: expected: a finite number."),
        ("timeout_s: soon", None),
        ("max_running: 0", "runner x, max_running: expected: greater than or equal to 1."),
        ("memory: 512MB", "runner x, memory: expected a size such as 512MiB."),
        ("memory: -1", "runner x, memory: expected a size such as 512MiB."),
        ("memory: 1MiB", "runner x, memory: expected: greater than or equal to 16777216."),
        ("cpus: 0", "runner x, cpus: expected: greater than 0."),
        ("pids: 1", "runner x, pids: expected: greater than or equal to 8."),
        ("tmpfs: {work: 1MiB}", "runner x, tmpfs.work: expected an absolute path such as /work."),
        ("tmpfs: {/a/../b: 1MiB}", "runner x, tmpfs./a/../b: expected an absolute path such as /work."),
        (
            "tmpfs: {/work: {exec: true}}",
            "runner x, tmpfs./work: expected a size such as 64MiB, or {size: 64MiB, exec: true}.",
        ),
        (
            "tmpfs: {/work: {size: 1MiB, exec: maybe}}",
            "runner x, tmpfs./work: expected a size such as 64MiB, or {size: 64MiB, exec: true}.",
        ),
        ("tmpfs: {/work: much}", "runner x, tmpfs./work: expected a size such as 512MiB."),
        ("env: {1A: x}", r"runner x, env.1A: expected: String should match pattern '^[A-Za-z_][A-Za-z0-9_]*$'."),
        ("env: {A: 1}", "runner x, env.A: expected text."),
    ],
)
def test_a_wrong_key_is_one_sentence_that_names_runner_and_key(tmp_path: Path, line: str, sentence: str | None) -> None:
    """Whatever is wrong in a runner, its line can be found."""
    good = {"image": "image: x", "command": 'command: ["{playbook}"]'}
    key = line.partition(":")[0]
    lines = [*(text for name, text in good.items() if name != key), line]
    text = "runners:\n  x:\n" + "".join(f"    {one}\n" for one in lines)
    (found,) = problems(tmp_path, text)
    assert found.startswith(f"runner x, {key}")
    assert found.endswith(".")
    if sentence is not None:
        assert found == sentence


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "expected a mapping `runners:` from names to runners."),
        ("- x", "expected a mapping `runners:` from names to runners."),
        ("runners: []", "expected a mapping `runners:` from names to runners."),
        ("runner: {}", "expected a mapping `runners:` from names to runners."),
        ("runners: {}\nextra: 1", "runner extra, as a whole: is not a known key."),
        ("runners: {x: 1}", None),
        ("runners: [", "line 1 is not valid YAML."),
        ("runners:\n  a: b: c\n", "line 2 is not valid YAML."),
    ],
)
def test_a_file_that_is_no_catalog_is_one_sentence(tmp_path: Path, text: str, sentence: str | None) -> None:
    """Also where it is no YAML at all."""
    (found,) = problems(tmp_path, text)
    if sentence is not None:
        assert found == sentence


def test_all_problems_are_told_at_once(tmp_path: Path) -> None:
    """Over several runners."""
    found = problems(tmp_path, "runners:\n  x: {image: a}\n  y: {command: ['{playbook}'], cpus: 0}\n")
    assert found == [
        "runner x, command: is required.",
        "runner y, image: is required.",
        "runner y, cpus: expected: greater than 0.",
    ]


@pytest.mark.parametrize("name", ["X", "1x", "a_b", "-a", "x" * 64])
def test_a_runners_name_is_short_and_plain(tmp_path: Path, name: str) -> None:
    """It becomes a label."""
    (found,) = problems(tmp_path, f'runners:\n  "{name}": {{image: a, command: ["{{playbook}}"]}}\n')
    assert found.startswith(f"runner {name}, name: expected: ")


def test_a_catalog_that_cannot_be_read_is_one_sentence(tmp_path: Path) -> None:
    """Missing, a folder, or no text."""
    with pytest.raises(ConfigurationError, match=r"^AGP_CATALOG: .*nowhere cannot be read: No such file"):
        catalog.load(tmp_path / "nowhere")
    with pytest.raises(ConfigurationError, match="cannot be read: Is a directory"):
        catalog.load(tmp_path)
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigurationError, match="the file is not valid YAML"):
        catalog.load(tmp_path / "binary")


def test_a_catalog_cannot_execute_anything(tmp_path: Path) -> None:
    """Tags of Python objects are no YAML here."""
    assert problems(tmp_path, 'runners: !!python/object/apply:os.system ["true"]\n')
