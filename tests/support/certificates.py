"""Certificates of the tests' own."""

import subprocess
from pathlib import Path


def certify(folder: Path, address: str) -> None:
    """Make cert.pem for an IP address, key.pem, and and ca.pem for both sides: the files of DOCKER_CERT_PATH."""
    command = "openssl req -x509 -newkey rsa:2048 -nodes -keyout key.pem -out cert.pem -subj /CN=engine -days 2"
    subject = f"subjectAltName=IP:{address}"
    subprocess.run([*command.split(), "-addext", subject], cwd=folder, check=True, capture_output=True)
    (folder / "ca.pem").write_bytes((folder / "cert.pem").read_bytes())
