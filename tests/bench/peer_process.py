"""One rival in its own environment: ``python peer_process.py NAME IMAGE FOLDER``. Knows nothing of this project.

A line on stdin is a lap; each answer is a line of JSON with a ``problem``, or null. Whatever the rival prints goes to
stderr. Every rival gets the same image and the same script, its own defaults in all else, no network where it can be
asked for none, and has its container removed as it is used to.
"""

import json
import os
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from queue import Queue
from threading import Event, Thread
from typing import Any

SCRIPT = "echo ok"
_PATIENCE_S = 60
INVENTORY = "localhost ansible_connection=local ansible_python_interpreter=/usr/bin/python3\n"


def airflow(image: str, folder: Path) -> Callable[[], str]:
    """Airflow's operator, outside of a scheduler, which would add seconds."""
    os.environ |= {"AIRFLOW_HOME": str(folder), "AIRFLOW__CORE__UNIT_TEST_MODE": "True"}
    os.environ |= {"AIRFLOW__CORE__LOAD_EXAMPLES": "False"}
    operators = import_module("airflow.providers.docker.operators.docker")

    def once() -> str:
        lap = operators.DockerOperator(
            task_id="lap",
            image=image,
            command=["sh", "-c", SCRIPT],
            network_mode="none",
            auto_remove="force",
            mount_tmp_dir=False,
        )
        return str(lap.execute({}))

    return once


def dagster(image: str, _folder: Path) -> Callable[[], str]:
    """The Pipes client, with the context of an op that runs. It leaves its container, and tells no output."""
    library, contexts = import_module("dagster"), Queue[Any]()

    def hold(context: Any) -> None:
        contexts.put(context)
        Event().wait()

    hold.__annotations__.clear()  # Dagster reads them, and knows no Any
    job = library.GraphDefinition("laps", node_defs=[library.op(hold)]).to_job()
    Thread(target=job.execute_in_process, daemon=True).start()
    context, client = contexts.get(timeout=_PATIENCE_S), import_module("dagster_docker").PipesDockerClient()

    def lap() -> str:
        options = {"network_mode": "none"}
        client.run(context=context, image=image, command=["sh", "-c", SCRIPT], container_kwargs=options)
        return "ok"

    return lap


def ansible_runner(image: str, folder: Path) -> Callable[[], str]:
    """A plain command with container isolation."""
    run_command = import_module("ansible_runner").run_command

    def lap() -> str:
        out, _, _ = run_command(
            executable_cmd="sh",
            cmdline_args=["-c", SCRIPT],
            private_data_dir=str(folder),
            process_isolation=True,
            process_isolation_executable="docker",
            container_image=image,
            container_options=["--network=none"],
            quiet=True,
        )
        return str(out)

    return lap


def ansible_runner_playbook(image: str, folder: Path) -> Callable[[], str]:
    """The playbook of the bench, in ``folder/project/site.yml``, with container isolation."""
    run = import_module("ansible_runner").run

    project, inventory = folder / "project", folder / "inventory"
    project.mkdir()
    inventory.mkdir()
    (project / "site.yml").write_text((folder.parent / "site.yml").read_text())
    (inventory / "hosts").write_text(INVENTORY)

    def lap() -> str:
        done = run(
            private_data_dir=str(folder),
            playbook="site.yml",
            process_isolation=True,
            process_isolation_executable="docker",
            container_image=image,
            container_options=["--network=none"],
            quiet=True,
        )
        return "ok" if done.rc == 0 else f"exit code {done.rc}"

    return lap


def epicbox(image: str, _folder: Path) -> Callable[[], str]:
    """A sandbox for untrusted code; it copies the script in and makes a volume for it."""
    box = import_module("epicbox")
    box.configure(profiles=[box.Profile("lap", image, network_disabled=True)])

    def lap() -> str:
        done = box.run("lap", "sh lap.sh", files=[{"name": "lap.sh", "content": SCRIPT.encode()}])
        return bytes(done["stdout"]).decode()

    return lap


RIVALS: dict[str, Callable[[str, Path], Callable[[], str]]] = {
    "airflow": airflow,
    "dagster": dagster,
    "ansible-runner": ansible_runner,
    "ansible-runner-playbook": ansible_runner_playbook,
    "epicbox": epicbox,
}


def main() -> None:
    """Import, say that it is ready, then a lap a line."""
    name, image, folder = sys.argv[1:4]
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def answer(problem: str | None) -> None:
        answers.write(json.dumps({"problem": problem}) + "\n")
        answers.flush()

    try:
        lap = RIVALS[name](image, Path(folder))
    except Exception as error:  # noqa: BLE001  whatever a rival raises is its reason
        answer(f"{type(error).__name__}: {error}")
        return
    answer(None)
    for _ in sys.stdin:
        try:
            output = lap().strip()
            answer(None if output == "ok" else f"it printed {output[:300]!r}")
        except Exception as error:  # noqa: BLE001
            answer(f"{type(error).__name__}: {error}")


if __name__ == "__main__":
    main()
