"""A real container registry (Debian's docker-registry) on loopback, with images of the test's own in it."""

import contextlib
import json
import re
import secrets
import subprocess
from pathlib import Path
from typing import Any, Final, Self

import docker
from docker.errors import NotFound

from support.test_tools import tool
from support.waiting import eventually

USER, PASSWORD = "agent", "the right password"
_HTPASSWD: Final = f"{USER}:$2b$05$QDjKnkfVAL2.8iiOIWN1uOYAa/CPRXDXUWQwLePBShIryA5UAXc1q\n"
"""``PASSWORD`` as `htpasswd -B` writes it; the registry takes bcrypt alone."""


class Registry:
    """One registry process. As a context manager it leaves nothing behind, on the engine neither."""

    def __init__(self, folder: Path, data: Path, *, private: bool = False) -> None:
        """Start it on a free port of loopback; a ``private`` one wants ``USER`` and ``PASSWORD``.

        ``data`` is where its images are; two registries may share one.
        """
        folder.mkdir(parents=True)
        self._log_path = folder / "registry.log"
        self._client = docker.from_env()
        configuration: dict[str, Any] = {
            "version": "0.1",
            "storage": {"filesystem": {"rootdirectory": str(data)}},
            "http": {"addr": "127.0.0.1:0"},
        }
        if private:
            (folder / "htpasswd").write_text(_HTPASSWD)
            configuration["auth"] = {"htpasswd": {"realm": "test", "path": str(folder / "htpasswd")}}
        (folder / "config.yml").write_text(json.dumps(configuration))  # JSON is YAML
        with self._log_path.open("wb") as log:
            self._process = subprocess.Popen(
                (tool("docker-registry"), "serve", str(folder / "config.yml")),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        self.port = eventually(self._listening, "the registry listens")
        self.address = f"127.0.0.1:{self.port}"
        """The engine takes a registry on loopback for one that may be asked in plain http."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self._process.terminate()
        self._process.wait()
        for host in ("localhost", "127.0.0.1"):
            self._forget(f"{host}:{self.port}/")
        self._client.close()

    def push(self, repository: str, tag: str, image: str, **environment: str) -> str:
        """Put a new image under a name: ``image`` with these variables. Returns its digest, as the registry says it.

        It does not stay on the engine, and what was pulled under ``address`` stays as it is.
        """
        name = f"localhost:{self.port}/{repository}"
        made = self._client.api.create_container(image)["Id"]
        try:
            changes = [f"ENV {key}={value}" for key, value in {**environment, "UNIQUE": secrets.token_hex(8)}.items()]
            self._client.api.commit(made, name, tag, changes=changes)
        finally:
            self._client.api.remove_container(made)
        said = list(self._client.api.push(name, tag, stream=True, decode=True))
        digests = [str(line["aux"]["Digest"]) for line in said if "aux" in line]
        assert digests, said
        self._forget(f"localhost:{self.port}/")
        return digests[0]

    def _forget(self, prefix: str) -> None:
        """Remove every name from the engine that begins so, and the images that have no other."""
        for image in self._client.api.images(all=True):
            for name in (*(image["RepoTags"] or ()), *(image["RepoDigests"] or ())):
                if name.startswith(prefix):
                    with contextlib.suppress(NotFound):  # with a tag goes its digest
                        self._client.api.remove_image(name, force=True)

    def manifests_asked(self, repository: str) -> int:
        """How often somebody asked for the manifest of an image: once a pull."""
        return self._log_path.read_text().count(f'"GET /v2/{repository}/manifests/')

    def _listening(self) -> int:
        """Its port; 0 while it does not listen yet."""
        log = self._log_path.read_text()
        assert self._process.poll() is None, log
        found = re.search(r"listening on 127\.0\.0\.1:(\d+)", log)
        return int(found[1]) if found else 0
