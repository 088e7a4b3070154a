"""Renders the chart as its users do, by helm; and writes the golden files anew.

``PYTHONPATH=tests python -m chart.rendering``
"""

import subprocess
import sys
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
CHART: Final = ROOT / "helm/agp-agent"
VALUES: Final = sorted((Path(__file__).parent / "values").glob("*.yaml"))
GOLDEN: Final = Path(__file__).parent / "golden"
HELM: Final = str(Path(sys.executable).with_name("helm"))
RELEASE: Final = ("agp", str(CHART), "--namespace", "automation")


def helm(*arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run helm, with no configuration of the machine's."""
    environment = {"PATH": "/usr/bin:/bin", "HOME": "/nonexistent", "HELM_NAMESPACE": "automation"}
    return subprocess.run((HELM, *arguments), env=environment, capture_output=True, text=True, check=False)


def rendered(values: Path, *more: str) -> str:
    """What is sent to the cluster."""
    done = helm("template", *RELEASE, "--values", str(values), *more)
    assert done.returncode == 0, done.stderr
    return done.stdout


def main() -> None:
    """Write every golden file anew; what has changed is for the reviewer of the change to see."""
    GOLDEN.mkdir(exist_ok=True)
    for path in GOLDEN.glob("*.yaml"):
        path.unlink()
    for values in VALUES:
        (GOLDEN / values.name).write_text(rendered(values))


if __name__ == "__main__":
    main()
