"""Registry credentials out of Docker's own configuration file, read anew for every pull: a rotation needs no restart.

The file is ``$DOCKER_CONFIG/config.json``, else ``~/.docker/config.json``; its ``auths``, ``credHelpers`` and
``credsStore`` mean what they mean to ``docker pull``.
"""

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Final

from docker.auth import INDEX_NAME, INDEX_URL, TOKEN_USERNAME, AuthConfig, encode_header
from docker.errors import InvalidConfigFile
from docker.utils.config import find_config_file

from agp_agent.docker_engine.translate import Json

_HELPER: Final = "docker-credential-"
_HELPER_TIMEOUT_S: Final = 30.0
_SAID_MAX: Final = 200
_NOT_FOUND: Final = "credentials not found"
"""How every helper says that it has none for this registry: then the pull is tried without."""


class CredentialsUnusable(Exception):
    """The operator named credentials for a registry, and they cannot be had; the message is one sentence."""


def header_for(registry: str) -> bytes | None:
    """The value of ``X-Registry-Auth`` for a registry (``docker.io``, ``host:port``); None where none is named.

    Blocks for as long as a credential helper takes, at most 30 s.

    Raises:
        CredentialsUnusable: the file or the helper that it names cannot be used.
    """
    found_file = find_config_file()
    if found_file is None:
        return None
    path = Path(str(found_file))
    document = _read(path)
    found = _of_helper(document, registry, path) or _of_auths(document, registry, path)
    return encode_header(found) if found else None


def _read(path: Path) -> Json:
    try:
        document = json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise CredentialsUnusable(f"{path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise CredentialsUnusable(f"{path} is not valid JSON") from error
    if not isinstance(document, dict):
        raise CredentialsUnusable(f"{path} is not a JSON object, as `docker login` writes it")
    return document


def _of_auths(document: Json, registry: str, path: Path) -> Json | None:
    """What stands in the file itself. Not by its path: the SDK takes a file that it cannot read for an empty one."""
    if not document.get("auths"):
        return None
    try:
        config = AuthConfig.load_config(None, {"auths": document["auths"]})
        found: Json | None = config.resolve_authconfig(registry)
    except (InvalidConfigFile, ValueError, AttributeError, TypeError) as error:
        raise CredentialsUnusable(f"{path} cannot be used: its auths are not as `docker login` writes them") from error
    return found


def _of_helper(document: Json, registry: str, path: Path) -> Json | None:
    """What the credential helper for this registry says, if there is one."""
    server = INDEX_URL if registry == INDEX_NAME else registry
    helpers = document.get("credHelpers")
    name = (helpers.get(server) if isinstance(helpers, dict) else None) or document.get("credsStore")
    if not name:
        return None
    program = shutil.which(f"{_HELPER}{name}")
    if program is None:
        raise CredentialsUnusable(
            f"{path} names the credential helper {_HELPER}{name}, and there is no such program on the agent's PATH: "
            "install it, or keep the credentials in auths"
        )
    told = _ask(program, server)
    if told is None:
        return None
    try:
        user, secret = told["Username"], told["Secret"]
    except (KeyError, TypeError) as error:
        raise CredentialsUnusable(f"{program} gave no Username and Secret for {server}") from error
    if user == TOKEN_USERNAME:
        return {"ServerAddress": server, "IdentityToken": secret}
    return {"ServerAddress": server, "Username": user, "Password": secret}


def _ask(program: str, server: str) -> Json | None:
    """Ask a helper; it learns nothing of the agent's own settings. Of a failure its stderr alone is told.

    Its stdout is never told: the secret may stand there all the same.
    """
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AGP_")}
    try:
        ended = subprocess.run(  # noqa: S603  the operator's own program, by its full path, without a shell
            [program, "get"],
            input=server,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=_HELPER_TIMEOUT_S,
        )
    except subprocess.TimeoutExpired as error:
        raise CredentialsUnusable(f"{program} did not answer within {_HELPER_TIMEOUT_S:g} s") from error
    except OSError as error:
        raise CredentialsUnusable(f"{program} cannot be run: {error}") from error
    except UnicodeDecodeError as error:
        raise CredentialsUnusable(f"{program} did not answer in UTF-8") from error
    if ended.returncode == 0:
        return _document(program, ended.stdout)
    if _NOT_FOUND in ended.stdout + ended.stderr:
        return None
    said = " ".join(ended.stderr.split())[:_SAID_MAX] or "it said nothing on stderr"
    raise CredentialsUnusable(f"{program} failed with exit code {ended.returncode}: {said}")


def _document(program: str, text: str) -> Json:
    try:
        document: Json = json.loads(text)
    except ValueError as error:
        raise CredentialsUnusable(f"{program} did not answer with JSON") from error
    return document
