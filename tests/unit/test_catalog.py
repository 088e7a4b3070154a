"""The catalog: which runner takes a playbook, and what an operator may write."""

import json
from pathlib import Path
from textwrap import dedent

import pytest
import yaml
from jsonschema import Draft202012Validator

from agp_agent import __version__, catalog
from agp_agent.catalog import Catalog, Runner
from agp_agent.engine import PullPolicy, Tmpfs
from agp_agent.errors import ConfigurationError
from agp_agent.mount_rules import MountRules

A_DIGEST = "a digest of the form image@sha256: and 64 hexadecimal digits"
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
    """Images and agent are released together; a public registry's images of that name are never taken."""
    assert built_in.names == ["shell", "python", "ansible"]
    for name, runner in built_in.runners.items():
        assert runner.image == f"agp/runner-{name}:{__version__}"
        assert runner.pull is PullPolicy.NEVER
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
    ("image", "spelled_out", "policy"),
    [
        ("agp/runner-shell:1", None, PullPolicy.NEVER),
        ("agp/runner-shell:1", "missing", PullPolicy.MISSING),
        ("registry.example/agp/runner-shell:1", None, PullPolicy.MISSING),
        ("other/runner-shell:1", None, PullPolicy.MISSING),
    ],
)
def test_an_image_that_is_built_with_the_agent_is_not_pulled_by_default(
    image: str, spelled_out: str | None, policy: PullPolicy
) -> None:
    """On a public registry its name is of whoever takes it, so asking there must be spelled out."""
    document = {"name": "x", "image": image, "command": ["{playbook}"]}
    runner = Runner.model_validate(document if spelled_out is None else document | {"pull": spelled_out})
    assert runner.pull is policy


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
        ("network: host", "runner x, network: expected: 'none' or 'outbound'."),
        (
            "allow: [10.0.0.0/8]",
            "runner x, as a whole: expected network: outbound, which alone makes `allow` mean something.",
        ),
        ("allow: [host.example]", None),
        ("allow: 10.0.0.0/8", "runner x, allow: expected a list."),
        ("mounts: [{source: /etc/shadow, target: /x}]", None),
        ("mounts: [{source: inventory, target: /x}]", None),
        ("mounts: [{source: /srv/x}]", "runner x, mounts.0.target: is required."),
        (
            "mounts: [{source: /srv/x, target: x}]",
            "runner x, mounts.0.target: expected an absolute path such as /work.",
        ),
        (
            "mounts: [{source: /srv/x, target: /x, rw: 'yes!'}]",
            "runner x, mounts.0.rw: expected true or false.",
        ),
        ("mounts: [{source: /srv/x, target: /x, ro: true}]", "runner x, mounts.0.ro: is not a known key."),
        ("inventory: /proc", None),
        ("secrets: [{source: /a}]", "runner x, secrets.0.name: is required."),
        ("secrets: [{source: a, name: a}]", None),
        ("secrets: [{source: /a, name: ../a}]", None),
        ("secrets: [{source: /a, name: .a}]", None),
        ("runtime: ''", None),
        ("runtime: run sc", None),
        ("seccomp: profile.json", "runner x, seccomp: expected an absolute path such as /srv/ansible/inventory."),
        ("seccomp: /nowhere.json", None),
        ("user: 0", "runner x, user: expected: greater than or equal to 1."),
        ("user: 65536", None),
        ("user: root", None),
        ("warmth: 1", "runner x, warmth: is not a known key."),
        ("image: Agp/Runner", None),
        ("image: 'a b'", None),
        (
            "image: a@sha256:0123",
            f"runner x, image: expected {A_DIGEST}.",
        ),
        (
            "image: a@md5:0123",
            f"runner x, image: expected {A_DIGEST}.",
        ),
    ],
)
def test_a_wrong_key_is_one_sentence_that_names_runner_and_key(tmp_path: Path, line: str, sentence: str | None) -> None:
    """Whatever is wrong in a runner, its line can be found."""
    good = {"image": "image: x", "command": 'command: ["{playbook}"]'}
    key = line.partition(":")[0]
    lines = [*(text for name, text in good.items() if name != key), line]
    text = "runners:\n  x:\n" + "".join(f"    {one}\n" for one in lines)
    (found,) = problems(tmp_path, text)
    assert found.startswith((f"runner x, {key}", "runner x, as a whole"))
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
        ("runners:\n  x: {image: a}\n  x: {image: b}\n", "at line 2: x stands twice."),
        ("runners: {x: {name: y}}", "expected no key `name` in a runner, which has its name above it: x."),
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


GRANTING = """
runners:
  ansible:
    image: registry.example:5000/team/ansible:2.1@sha256:{digest}
    pull: always
    match: {{suffixes: [.yml], plays: true}}
    command: [ansible-playbook, "{{playbook}}"]
    network: outbound
    allow: ["10.20.0.0/16:22", 192.168.1.7]
    mounts:
      - {{source: /srv/ansible/roles, target: /roles}}
      - {{source: /srv/ansible/out, target: /out, rw: true}}
    inventory: /srv/ansible/hosts
    secrets:
      - {{source: /etc/agp-agent/secrets/ssh_key, name: ssh_key}}
      - {{source: /etc/agp-agent/secrets/vault, name: vault.txt}}
    runtime: kata-runtime
    seccomp: {profile}
    user: 4242
"""


def granting(folder: Path) -> str:
    """Return a catalog that grants everything there is."""
    profile = folder / "profile.json"
    profile.write_text('{"defaultAction": "SCMP_ACT_ERRNO"}')
    return GRANTING.format(digest="0123456789abcdef" * 4, profile=profile)


def test_everything_that_a_catalog_can_grant(tmp_path: Path) -> None:
    """Each key in the form that it is written in."""
    runner = loaded(tmp_path, granting(tmp_path)).runners["ansible"]
    assert runner.image.startswith("registry.example:5000/team/ansible:2.1@sha256:0123")
    assert (runner.network, runner.runtime, runner.user, runner.pull) == (
        "outbound",
        "kata-runtime",
        4242,
        PullPolicy.ALWAYS,
    )
    assert [str(one) for one in runner.allow] == ["10.20.0.0/16:22", "192.168.1.7"]
    assert [(mount.source, mount.target, mount.rw) for mount in runner.mounts] == [
        ("/srv/ansible/roles", "/roles", False),
        ("/srv/ansible/out", "/out", True),
    ]
    assert runner.sources == ["/srv/ansible/roles", "/srv/ansible/out", "/srv/ansible/hosts"]
    assert [secret.name for secret in runner.secret_files] == ["ssh_key", "vault.txt"]
    assert runner.seccomp is not None
    assert loaded(tmp_path, granting(tmp_path)).side_files == [tmp_path / "profile.json"]


@pytest.mark.parametrize(
    ("lines", "sentence"),
    [
        (
            "mounts: [{source: /srv/a, target: /a}, {source: /srv/b, target: /a}]",
            "one mount or tmpfs at each path, and /a stands twice",
        ),
        ("mounts: [{source: /srv/a, target: /work}]", "one mount or tmpfs at each path, and /work stands twice"),
        (
            "mounts: [{source: /srv/a, target: /inventory}]\n    inventory: /srv/hosts",
            "one mount or tmpfs at each path, and /inventory stands twice",
        ),
        ("tmpfs: {/playbook: 1MiB}", "mounts and tmpfs elsewhere than at /playbook: /playbook is not the catalog's"),
        ("tmpfs: {/run: 1MiB}", "mounts and tmpfs elsewhere than at /run: /run/secrets is not the catalog's"),
        (
            "mounts: [{source: /srv/a, target: /run/secrets/key}]",
            "mounts and tmpfs elsewhere than at /run/secrets/key: /run/secrets is not the catalog's",
        ),
        (
            "mounts: [{source: /srv/a, target: /proc/sys}]",
            "mounts and tmpfs elsewhere than at /proc/sys: /proc is not the catalog's",
        ),
        (
            "secrets: [{source: /a, name: a}, {source: /b, name: a}]",
            "one secret of each name, and a stands twice",
        ),
    ],
)
def test_keys_that_contradict_each_other_are_one_sentence(tmp_path: Path, lines: str, sentence: str) -> None:
    """What the agent, the engine or another key puts at a path is not covered up."""
    text = f'runners:\n  x:\n    image: x\n    command: ["{{playbook}}"]\n    {lines}\n'
    assert problems(tmp_path, text) == [f"runner x, as a whole: expected {sentence}."]


def test_the_places_of_this_agent_cannot_be_mounted(tmp_path: Path) -> None:
    """Those that its settings name, through links too."""
    state = tmp_path / "state"
    state.mkdir()
    (tmp_path / "link").symlink_to(state)
    file = tmp_path / "catalog.yaml"
    mounts = f"[{{source: {tmp_path}/link/slots, target: /a}}]"
    file.write_text(f'runners: {{x: {{image: x, command: ["{{playbook}}"], mounts: {mounts}}}}}')
    assert catalog.load(file).runners["x"].mounts
    with pytest.raises(ConfigurationError, match=f"leads to {state}/slots, which is in {state}, the agent's state"):
        catalog.load(file, MountRules({state: "the agent's state"}))


def test_a_folder_that_holds_a_secret_is_not_mounted(tmp_path: Path) -> None:
    """Of whatever runner: a playbook that runs as the folder's owner could read it unmasked."""
    (tmp_path / "keys").mkdir()
    text = f"""
    runners:
      x: {{image: x, command: ["{{playbook}}"], secrets: [{{source: {tmp_path}/keys/key, name: key}}]}}
      y: {{image: x, command: ["{{playbook}}"], mounts: [{{source: {tmp_path}/keys, target: /keys}}]}}
    """
    (found,) = problems(tmp_path, text)
    held = f"{tmp_path}/keys holds {tmp_path}/keys/key, the secret key."
    assert found == f"runner y, mounts: expected folders without secrets; {held}"


def profile_of(rule: dict[str, object]) -> str:
    """A profile with one rule."""
    return json.dumps({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [rule]})


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("{", "is not valid JSON"),
        ("[]", "a profile that forbids what it does not name"),
        ("{}", "a profile that forbids what it does not name"),
        ('{"defaultAction": "SCMP_ACT_ALLOW"}', "a profile that forbids what it does not name: defaultAction one of "),
        ('{"defaultAction": "SCMP_ACT_LOG"}', "a profile that forbids what it does not name"),
        (profile_of({"names": ["read", "mount", "bpf"], "action": "SCMP_ACT_ALLOW"}), "lets through bpf, mount; take"),
        (profile_of({"name": "mount", "action": "SCMP_ACT_ALLOW"}), "lets through mount"),
        (profile_of({"names": ["setns"], "action": "SCMP_ACT_LOG"}), "lets through setns"),
        (profile_of({"names": ["keyctl"], "action": "SCMP_ACT_ALLOW", "includes": {"minKernel": "4.8"}}), "keyctl"),
        ('{"defaultAction": "SCMP_ACT_ERRNO", "syscalls": "mount"}', "expected syscalls: a list of rules"),
        (profile_of({"names": "mount", "action": "SCMP_ACT_ALLOW"}), "expected names: a list of names of calls"),
    ],
)
def test_a_seccomp_profile_that_allows_what_it_does_not_name_is_refused(
    tmp_path: Path, text: str, sentence: str
) -> None:
    """It would be weaker than the engine's own."""
    profile = tmp_path / "profile.json"
    profile.write_text(text)
    catalog_text = f'runners: {{x: {{image: x, command: ["{{playbook}}"], seccomp: {profile}}}}}'
    (found,) = problems(tmp_path, catalog_text)
    assert sentence in found


@pytest.mark.parametrize(
    "rule",
    [
        {"names": ["ptrace", "io_uring_setup", "read"], "action": "SCMP_ACT_ALLOW"},
        {"names": ["mount"], "action": "SCMP_ACT_ERRNO"},
        {"names": ["mount"], "action": "SCMP_ACT_ALLOW", "includes": {"caps": ["CAP_SYS_ADMIN"]}},
        {"names": ["keyctl"], "action": "SCMP_ACT_ALLOW", "args": [{"index": 0, "value": 0, "op": "SCMP_CMP_EQ"}]},
    ],
)
def test_a_seccomp_profile_may_open_what_playbooks_need(tmp_path: Path, rule: dict[str, object]) -> None:
    """Tracers and io_uring; and what is allowed under conditions is for the operator to judge."""
    (tmp_path / "profile.json").write_text(profile_of(rule))
    text = f'runners: {{x: {{image: x, command: ["{{playbook}}"], seccomp: {tmp_path}/profile.json}}}}'
    (tmp_path / "catalog.yaml").write_text(text)
    assert catalog.load(tmp_path / "catalog.yaml").runners["x"].seccomp is not None


@pytest.mark.parametrize("mode", [0o664, 0o646])
def test_a_catalog_that_others_can_write_is_refused(tmp_path: Path, mode: int) -> None:
    """They would decide what runners may do."""
    file = tmp_path / "catalog.yaml"
    file.write_text("runners: {}")
    file.chmod(mode)
    with pytest.raises(ConfigurationError) as caught:
        catalog.load(file)
    why = f"has mode {mode:04o}, so others than its owner can change it; expected 0644"
    assert caught.value.problems == (f"AGP_CATALOG: {file} {why}.",)
    file.chmod(0o644)
    catalog.load(file)


def test_a_seccomp_profile_that_others_can_write_is_refused(tmp_path: Path) -> None:
    """It may be another one at the next reload."""
    text = granting(tmp_path)
    (tmp_path / "profile.json").chmod(0o662)
    (found,) = problems(tmp_path, text)
    assert found.endswith("profile.json has mode 0662, so others than its owner can change it; expected 0640.")


def test_a_writable_mount_may_not_hold_what_confines_others(tmp_path: Path) -> None:
    """The profile of another runner, and what the host itself believes; read-only they may be mounted."""
    granting(tmp_path)
    text = """
    runners:
      x: {{image: x, command: ["{{playbook}}"], seccomp: {folder}/profile.json}}
      y: {{image: x, command: ["{{playbook}}"], mounts: [{{source: {source}, target: /a, rw: {rw}}}]}}
    """
    (found,) = problems(tmp_path, text.format(folder=tmp_path, source=tmp_path, rw="true"))
    held = f"{tmp_path} holds {tmp_path}/profile.json, the seccomp profile of x."
    assert found == f"runner y, mounts: expected folders that may be written to; {held}"
    loaded(tmp_path, text.format(folder=tmp_path, source=tmp_path, rw="false"))
    (found,) = problems(tmp_path, text.format(folder=tmp_path, source="/etc/ansible", rw="true"))
    in_etc = "/etc/ansible is in /etc, the host's configuration."
    assert found == f"runner y, mounts.0: expected a folder or file that may be written to; {in_etc}"


@pytest.mark.parametrize(
    "image",
    [
        "debian",
        "debian:trixie-slim",
        "library/debian",
        "agp/runner-shell:0.2.0",
        "localhost/x",
        "localhost:5000/x:1",
        "127.0.0.1:5000/a/b_c/d-e.f:v1.2_3",
        "[::1]:5000/x",
        "registry.example/x@sha256:" + "0" * 64,
        "registry.example/x:1@sha256:" + "a" * 64,
    ],
)
def test_names_of_images_are_docker_s(image: str) -> None:
    """With registry, port, tag and digest."""
    assert Runner.model_validate({"name": "x", "image": image, "command": ["{playbook}"]}).image == image


def test_the_schema_accepts_what_the_agent_does_and_refuses_typos(tmp_path: Path) -> None:
    """The built-in catalog, one that grants everything, and a misspelled key."""
    schema = catalog.schema()
    validator = Draft202012Validator(schema)
    validator.check_schema(schema)
    everything = yaml.safe_load(granting(tmp_path))
    built_in = yaml.safe_load((Path(catalog.__file__).parents[1] / "catalog.yaml").read_text())
    for document in (everything, built_in):
        assert [error.message for error in validator.iter_errors(document)] == []
    for key, value in (("comand", []), ("memory", "512MB"), ("network", "host"), ("name", "x"), ("allow", "x")):
        wrong = {"runners": {"ansible": everything["runners"]["ansible"] | {key: value}}}
        assert not validator.is_valid(wrong), key
    assert not validator.is_valid({"runners": {"X": everything["runners"]["ansible"]}})
