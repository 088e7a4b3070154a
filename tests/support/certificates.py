"""Certificates of the tests' own."""

import subprocess
from pathlib import Path


def certify(folder: Path, address: str) -> None:
    """Make cert.pem for an IP address, key.pem, and and ca.pem for both sides: the files of DOCKER_CERT_PATH."""
    command = "openssl req -x509 -newkey rsa:2048 -nodes -keyout key.pem -out cert.pem -subj /CN=engine -days 2"
    subject = f"subjectAltName=IP:{address}"
    subprocess.run([*command.split(), "-addext", subject], cwd=folder, check=True, capture_output=True)
    (folder / "ca.pem").write_bytes((folder / "cert.pem").read_bytes())


def issue(folder: Path, address: str) -> None:
    """Make cert.pem and key.pem for an IP address, from an authority of its own that nobody is told of."""
    (folder / "names").write_text(f"subjectAltName=IP:{address}")
    key, sign = "-newkey rsa:2048 -nodes", "-CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile names"
    for command in (
        f"openssl req -x509 {key} -keyout ca.key -out ca.pem -subj /CN=authority -days 2",
        f"openssl req {key} -keyout key.pem -out request.pem -subj /CN=agent",
        f"openssl x509 -req -in request.pem -out cert.pem {sign}",
    ):
        subprocess.run(command.split(), cwd=folder, check=True, capture_output=True)
