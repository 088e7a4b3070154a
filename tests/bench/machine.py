"""The machine that the figures come from; without it they mean nothing."""

import os
import platform
import sqlite3
import subprocess
from pathlib import Path

from docker import APIClient


def describe(client: APIClient, folder: Path) -> dict[str, str]:
    """What is printed above the table. ``folder`` is where the measured state directories stand."""
    info = client.info()
    version = client.version()
    return {
        "processor": f"{os.cpu_count()} x {_field('/proc/cpuinfo', 'model name')}",
        "memory": f"{int(_field('/proc/meminfo', 'MemTotal').split()[0]) / 2**20:.1f} GiB",
        "kernel": platform.release().partition("-")[0],
        "engine": f"{version['Version']} ({info['DefaultRuntime']}, cgroup v{info.get('CgroupVersion', '1')})",
        "docker run by": subprocess.run(
            ["docker", "--version"], capture_output=True, check=True, text=True
        ).stdout.strip(),
        "storage driver": info["Driver"],
        "state directory on": _file_system(folder),
        "python, sqlite": f"{platform.python_version()}, {sqlite3.sqlite_version}",
    }


def load() -> str:
    """How busy the machine was of late: others on it colour every figure."""
    return " ".join(f"{value:.2f}" for value in os.getloadavg())


def _field(file: str, name: str) -> str:
    for line in Path(file).read_text().splitlines():
        key, _, value = line.partition(":")
        if key.strip() == name:
            return value.strip()
    return "unknown"


def _file_system(folder: Path) -> str:
    """Type of the file system that holds ``folder``: a figure from a tmpfs says nothing of a disk."""
    mounts = (line.split() for line in Path("/proc/self/mounts").read_text().splitlines())
    holding = [(mount[1], mount[2]) for mount in mounts if folder.is_relative_to(mount[1])]
    return max(holding, key=lambda mount: len(mount[0]))[1]
