"""Reading a catalog: from YAML to runners, with every problem in one sentence of its own."""

from collections.abc import Hashable, Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

import yaml
from pydantic import ValidationError

from agp_agent import __version__
from agp_agent.catalog.catalog import Catalog
from agp_agent.catalog.runner import Runner
from agp_agent.catalog.values import NotBelieved, read_believed
from agp_agent.errors import ConfigurationError
from agp_agent.mount_rules import MountRules

_EXPECTED: Final = {
    "missing": "is required",
    "model_type": "expected a mapping of keys to values",
    "dict_type": "expected a mapping of keys to values",
    "tuple_type": "expected a list",
    "string_type": "expected text",
    "string_too_short": "must not be empty",
    "bool_type": "expected true or false",
    "bool_parsing": "expected true or false",
}


def load(path: Path | None = None, rules: MountRules | None = None) -> Catalog:
    """The built-in catalog, with the operator's runners laid over it. ``rules`` say what may not be mounted.

    Raises:
        ConfigurationError: every problem at once, each with file, runner, key and what was expected.
    """
    built_in = (files("agp_agent") / "catalog.yaml").read_text().replace("{version}", __version__)
    catalog = Catalog.model_validate(yaml.safe_load(built_in))
    if path is None:
        return catalog
    runners = _read(path, rules or MountRules()).runners
    if problems := [*_mounted_side_files(list(runners.values()))]:
        raise ConfigurationError(*(f"AGP_CATALOG: {path}: {problem}" for problem in problems))
    return Catalog(runners={**catalog.runners, **runners})


def schema() -> dict[str, Any]:
    """JSON Schema of a catalog, for editors and pipelines; the agent itself checks more than a schema can say."""
    document = Catalog.model_json_schema()
    runner = document["$defs"]["Runner"]
    del runner["properties"]["name"]  # it is the key under which a runner stands
    runner["required"].remove("name")
    document["properties"]["runners"]["propertyNames"] = {"pattern": "^[a-z][a-z0-9-]{0,62}$"}
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **document, "title": "Catalog of runners"}


def _mounted_side_files(runners: list[Runner]) -> Iterator[str]:
    """A secret that lies in a mounted folder is none: a playbook could read it past the masking.

    And a seccomp profile that a playbook can write to confines nobody.
    """
    held = {secret.source: f"the secret {secret.name}" for runner in runners for secret in runner.secret_files}
    profiles = {runner.seccomp.path: f"the seccomp profile of {runner.name}" for runner in runners if runner.seccomp}
    rules, rules_to_write = MountRules(held), MountRules(believed=profiles)
    for runner in runners:
        for source in runner.sources:
            if problem := rules.problem(source):
                yield f"runner {runner.name}, mounts: expected folders without secrets; {problem}."
        for mount in runner.mounts:
            if mount.rw and (problem := rules_to_write.problem(mount.source, writable=True)):
                yield f"runner {runner.name}, mounts: expected folders that may be written to; {problem}."


class _Loader(yaml.SafeLoader):
    """YAML in which a key stands once: of two runners with one name the first would vanish without a word."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:  # noqa: FBT001, FBT002  as the base has it
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode) and key.value != "<<"]
        for key in keys:
            if keys.count(key) > 1:
                raise yaml.constructor.ConstructorError(None, None, f"{key} stands twice", node.start_mark)
        return super().construct_mapping(node, deep)


def _read(path: Path, rules: MountRules) -> Catalog:
    try:
        document = yaml.load(read_believed(path).decode(), _Loader)  # noqa: S506  a SafeLoader
    except OSError as error:
        raise ConfigurationError(f"AGP_CATALOG: {path} cannot be read: {error.strerror}.") from None
    except NotBelieved as error:
        raise ConfigurationError(f"AGP_CATALOG: {path} {error}.") from None
    except yaml.constructor.ConstructorError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise ConfigurationError(f"AGP_CATALOG: {path}: at line {line}: {error.problem}.") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        where = f"line {mark.line + 1}" if (mark := getattr(error, "problem_mark", None)) else "the file"
        raise ConfigurationError(f"AGP_CATALOG: {path}: {where} is not valid YAML.") from None
    try:
        return Catalog.model_validate(document, context=rules)
    except ValidationError as error:
        raise ConfigurationError(
            *(f"AGP_CATALOG: {path}: {_describe(problem)}" for problem in error.errors())
        ) from None


def _describe(problem: Any) -> str:
    path = [str(part) for part in problem["loc"] if part not in ("runners", "[key]")]
    where = f"runner {path[0]}, {'.'.join(path[1:]) or 'as a whole'}: " if path else ""
    if problem["type"] == "extra_forbidden":
        return f"{where}is not a known key."
    if problem["type"] == "value_error":
        return f"{where}expected {problem['ctx']['error']}."
    if problem["type"] in _EXPECTED:
        return f"{where}{_EXPECTED[problem['type']]}."
    return f"{where}expected: {problem['msg'].removeprefix('Input should be ')}."
