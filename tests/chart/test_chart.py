"""The chart renders what it did before, Kubernetes takes it, and wrong values are refused with a sentence."""

import json
import re
import shutil
from pathlib import Path
from typing import Any, Final

import kubernetes_validate
import pytest
import yaml

from agp_agent import __version__
from agp_agent.settings import Settings
from chart.rendering import CHART, GOLDEN, RELEASE, VALUES, helm, rendered
from chart.value_table import BEGIN, END, README, table

KUBERNETES: Final = [f"1.{minor}.0" for minor in range(29, 38)]
NOT_KUBERNETES: Final = {"PodMonitor"}
"""Kinds that an operator brings: no schema of Kubernetes has them."""
MINIMAL: Final = Path(__file__).parent / "values/minimal.yaml"


def documents(values: Path) -> list[dict[str, Any]]:
    """The objects that are rendered."""
    return [one for one in yaml.safe_load_all(rendered(values)) if one]


def daemon_set(values: Path) -> dict[str, Any]:
    """The pod's specification, of the DaemonSet among them."""
    (found,) = (one for one in documents(values) if one["kind"] == "DaemonSet")
    pod: dict[str, Any] = found["spec"]["template"]["spec"]
    return pod


def agent_of(pod: dict[str, Any]) -> dict[str, Any]:
    """The agent's container."""
    agent: dict[str, Any] = next(one for one in pod["containers"] if one["name"] == "agent")
    return agent


@pytest.mark.parametrize("values", VALUES, ids=lambda path: path.stem)
def test_it_renders_as_before(values: Path) -> None:
    """A change of the golden file is seen in review; ``python -m chart.rendering`` writes them anew."""
    assert rendered(values) == (GOLDEN / values.name).read_text()


def test_every_golden_file_has_its_values() -> None:
    """None is left of values that are gone."""
    assert {path.name for path in GOLDEN.glob("*")} == {path.name for path in VALUES}


@pytest.mark.parametrize("version", KUBERNETES)
@pytest.mark.parametrize("values", VALUES, ids=lambda path: path.stem)
def test_kubernetes_takes_it(values: Path, version: str) -> None:
    """By the schemas of each version, with no field that it does not know."""
    for document in documents(values):
        if document["kind"] not in NOT_KUBERNETES:
            kubernetes_validate.validate(document, version, strict=True)


def test_a_field_that_kubernetes_does_not_know_is_found() -> None:
    """The control: a typo in a probe."""
    (found,) = (one for one in documents(MINIMAL) if one["kind"] == "DaemonSet")
    agent_of(found["spec"]["template"]["spec"])["livenessProbe"]["periodSecond"] = 1
    with pytest.raises(kubernetes_validate.ValidationError, match="periodSecond"):
        kubernetes_validate.validate(found, KUBERNETES[-1], strict=True)


@pytest.mark.parametrize("values", VALUES, ids=lambda path: path.stem)
def test_helm_finds_nothing_to_complain_of(values: Path) -> None:
    """``helm lint --strict``."""
    done = helm("lint", "--strict", str(CHART), "--values", str(values))
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("values", VALUES, ids=lambda path: path.stem)
def test_what_the_agent_is_told_are_settings_of_its_own(values: Path) -> None:
    """Every AGP_ variable of the pod is one that the agent has; so are the keys of its file."""
    environment = {one["name"] for one in agent_of(daemon_set(values))["env"]}
    known = {f"AGP_{name.upper()}" for name in Settings.model_fields} | {"AGP_CONFIG"}
    assert {name for name in environment if name.startswith("AGP_")} <= known
    (config,) = (one for one in documents(values) if one["kind"] == "ConfigMap" and "agent.yaml" in one["data"])
    assert set(yaml.safe_load(config["data"]["agent.yaml"])) <= set(Settings.model_fields)


def test_the_agent_is_locked_down() -> None:
    """No root, no rights, no token of the cluster, nothing of its services, and nothing writable but its state."""
    pod = daemon_set(MINIMAL)
    assert (pod["automountServiceAccountToken"], pod["enableServiceLinks"]) == (False, False)
    assert not {"hostNetwork", "hostPID", "hostIPC"} & pod.keys()
    assert pod["securityContext"]["runAsNonRoot"]
    context = agent_of(pod)["securityContext"]
    assert context == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


def test_what_runs_is_left_in_order() -> None:
    """The pod's end comes well after the drain's."""
    pod = daemon_set(Path(__file__).parent / "values/extras.yaml")
    (drain,) = (one["value"] for one in agent_of(pod)["env"] if one["name"] == "AGP_DRAIN_TIMEOUT_S")
    assert pod["terminationGracePeriodSeconds"] == int(drain) + 30


@pytest.mark.parametrize("mode", ["minimal", "tailnet-kernel"])
def test_with_a_tailnet_the_pods_network_does_not_reach_the_agent(mode: str) -> None:
    """It listens on loopback, behind tailscaled; or on the tailnet's device alone."""
    agent = agent_of(daemon_set(Path(__file__).parent / f"values/{mode}.yaml"))
    told = {one["name"]: one.get("value") for one in agent["env"]}
    where = (told["AGP_HOST"], told.get("AGP_INTERFACE"))
    assert where == {"minimal": ("127.0.0.1", None), "tailnet-kernel": ("0.0.0.0", "tailscale0")}[mode]  # noqa: S104
    assert told["AGP_TAILSCALE_ALLOW"]
    assert not any("hostPort" in port for port in agent["ports"])


REFUSED: Final = {
    "dashboard.url=": "dashboard.url: where are results to be sent",
    "dashboard.url=dashboard.example.com": "dashboard.url",
    "tokens.existingSecret=": "tokens: name a Secret with the keys token and dashboard-token",
    "tokens.token=in-0123456789abcdef": "tokens: give either existingSecret, or token and dashboardToken",
    "tokens.token=short": "tokens.token",
    "tailnet.enabled=false": "Nobody could reach the agent",
    "exposure.podNetwork=true": "with tailnet.enabled only the tailnet reaches the agent",
    "exposure.hostPort=8470": "exposure.hostPort: needs exposure.podNetwork=true",
    "networkPolicy.from[0].podSelector.matchLabels.a=b": "networkPolicy.from: with tailnet.enabled nobody",
    "tailnet.loginServer=": "tailnet.loginServer: which control server",
    "tailnet.authKeySecret=": "tailnet.authKeySecret: name a Secret",
    "tailnet.mode=magic": "tailnet.mode",
    "dashboard.proxy=http://proxy:3128": "dashboard.proxy: with a userspace tailnet",
    "podMonitor.enabled=true": "podMonitor.enabled: Prometheus reaches the agent only with",
    "engine.mode=podman": "engine.mode",
    "engine.mode=remote": "engine.mode remote: set engine.remote.host",
    "engine.dind.imagesPath=/images.tar": "engine.dind: is used with engine.mode dind only",
    "engine.mode=dind": "engine.mode dind: its engine has no images",
    "updateStrategy.rollingUpdate.maxSurge=1": "updateStrategy.rollingUpdate.maxSurge: two agents of one node",
    "extraEnv[0].name=AGP_HOST,extraEnv[0].value=0.0.0.0": "extraEnv: AGP_HOST: the chart sets this itself",
    "extraEnv[0].name=DOCKER_HOST,extraEnv[0].value=tcp://x": "extraEnv: DOCKER_HOST: the chart sets this itself",
    "engine.hostSocket.gruop=999": "gruop",
    "state.type=volumeClaim": "state.type: with engine.mode hostSocket",
    "state.type=nowhere": "state.type",
    "state.type=volumeClaim,engine.mode=remote,engine.remote.host=tcp://e:2376,engine.remote.tlsSecret=s": (
        "state.type: with engine.mode remote"
    ),
    "podSecurityContext.runAsUser=null": "runAsUser",
    "podSecurityContext.runAsUser=0": "runAsUser",
    "podLabels.app\\.kubernetes\\.io/name=x": "podLabels: app.kubernetes.io/name: the pods are selected by it",
    "catalogConfigMap=c,catalog.runners.a.image=b": "catalog and catalogConfigMap: give one of the two",
    "settings.state_dir=/x": "settings.state_dir: the chart sets this itself",
    "image.digest=latest": "image.digest",
    "replicas=3": "replicas",
}
"""What is changed in the least values there are, and what is said to it."""


@pytest.mark.parametrize("change", REFUSED)
def test_wrong_values_are_refused_with_a_sentence(change: str) -> None:
    """Typos, and values that contradict one another, before anything reaches the cluster."""
    done = helm("template", *RELEASE, "--values", str(MINIMAL), "--set", change)
    assert done.returncode != 0
    assert REFUSED[change] in done.stderr


def test_without_a_network_policy_somebody_must_have_said_so() -> None:
    """A pod's address that everybody reaches is never a default."""
    given = ("--set", "tailnet.enabled=false,exposure.podNetwork=true")
    done = helm("template", *RELEASE, "--values", str(MINIMAL), *given)
    assert "networkPolicy.from: say who may come in" in done.stderr


def test_the_readme_has_every_value() -> None:
    """As the comments of values.yaml say; ``python -m chart.value_table`` writes it."""
    assert README.read_text().partition(BEGIN)[2].partition(END)[0].strip() == table()


def test_the_schema_has_every_value() -> None:
    """Else a value that stands in values.yaml could not be changed."""
    schema = json.loads((CHART / "values.schema.json").read_text())

    def missing(values: dict[str, Any], schema: dict[str, Any], above: str = "") -> list[str]:
        known = schema.get("properties", {})
        if schema.get("additionalProperties") is not False:
            return []
        unknown = [f"{above}{name}" for name in values if name not in known]
        deeper = [(name, value) for name, value in values.items() if name in known and isinstance(value, dict)]
        return unknown + [one for name, value in deeper for one in missing(value, known[name], f"{above}{name}.")]

    assert missing(yaml.safe_load((CHART / "values.yaml").read_text()), schema) == []


def test_chart_and_agent_have_one_version() -> None:
    """The chart installs the agent that it was made with."""
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert (chart["version"], chart["appVersion"]) == (__version__, __version__)


NOTES: Final = """apiVersion: v1
kind: ConfigMap
metadata: {name: notes}
data:
  notes: |
{{ include "notes" . | indent 4 }}
"""


def test_the_notes_name_the_next_commands(tmp_path: Path) -> None:
    """What is printed after an installation; helm renders it for a cluster only, so it is put into an object here."""
    shutil.copytree(CHART, tmp_path / "chart")
    notes = (CHART / "templates/NOTES.txt").read_text()
    (tmp_path / "chart/templates/_notes.tpl").write_text(f'{{{{ define "notes" }}}}{notes}{{{{ end }}}}')
    (tmp_path / "chart/templates/notes.yaml").write_text(NOTES)
    done = helm(
        "template", "agp", str(tmp_path / "chart"), "--values", str(MINIMAL), "--show-only", "templates/notes.yaml"
    )
    assert done.returncode == 0, done.stderr
    for command in ("rollout status daemonset/agp-agp-agent", "agp-agent doctor", "`helm uninstall` leaves"):
        assert command in done.stdout
    assert not re.search(r"{{|<no value>", done.stdout)
