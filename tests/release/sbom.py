"""The list of what is in an image, in CycloneDX's JSON: Debian's packages, and Python's."""

import json
import uuid
from pathlib import Path
from typing import Final

import docker
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.output.json import JsonV1Dot6
from packageurl import PackageURL

_DEBIAN: Final = "dpkg-query --show --showformat '${Package} ${Version} ${Architecture}\\n'"
_PYTHON: Final = """
import importlib.metadata as m, sys
for one in sorted(m.distributions(), key=lambda d: d.name.lower()): print(one.name, one.version)
"""
_INTERPRETERS: Final = ("/opt/agp-agent/bin/python", "/usr/bin/python3")


def write_sbom(client: docker.DockerClient, tag: str, target: Path) -> list[str]:
    """Write the list of an image's packages into ``target``; returns them as package URLs."""
    image = client.images.get(tag)
    name, _, version = tag.rpartition(":")
    bom = Bom(serial_number=uuid.uuid5(uuid.NAMESPACE_URL, str(image.id)))
    bom.metadata.component = Component(name=name, version=version, type=ComponentType.CONTAINER, bom_ref=str(image.id))
    parts = [*_debian_packages(client, tag), *_python_packages(client, tag)]
    for part in parts:
        bom.components.add(part)
        bom.register_dependency(bom.metadata.component, [part])
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(json.loads(JsonV1Dot6(bom).output_as_string()), indent=2, sort_keys=True) + "\n")
    return sorted(str(part.purl) for part in parts)


def _debian_packages(client: docker.DockerClient, tag: str) -> list[Component]:
    lines = _run(client, tag, "sh", "-c", _DEBIAN).splitlines()
    return [_component("deb", "debian", *line.split(" ")) for line in lines]


def _python_packages(client: docker.DockerClient, tag: str) -> list[Component]:
    """Of the first interpreter that the image has: the agent's own environment, else Debian's."""
    look = f'for one in {" ".join(_INTERPRETERS)}; do [ -x "$one" ] && exec "$one" -c "$0"; done; true'
    lines = sorted(set(_run(client, tag, "sh", "-c", look, _PYTHON).splitlines()))
    return [_component("pypi", None, *line.split(" ")) for line in lines]


def _component(kind: str, namespace: str | None, name: str, version: str, arch: str | None = None) -> Component:
    url = PackageURL(kind, namespace, name, version, {"arch": arch} if arch else None)
    return Component(name=name, version=version, type=ComponentType.LIBRARY, purl=url, bom_ref=str(url))


def _run(client: docker.DockerClient, tag: str, program: str, *arguments: str) -> str:
    printed = client.containers.run(
        tag, list(arguments), entrypoint=program, network_disabled=True, read_only=True, remove=True, user="65534"
    )
    return bytes(printed).decode()
