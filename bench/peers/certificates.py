"""An authority of its own for a run, with a certificate for the servers and one for the clients."""

import subprocess
from pathlib import Path

DAYS = "7"
KEY = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
# The common name of the client is also its user at PostgreSQL, which knows it by its certificate.
CLIENT = "bench"


def make(directory):
    """Writes `ca.pem`, and `server` and `client` each as `.pem` and `.key`."""
    directory.mkdir()
    _openssl(directory, "req", "-x509", *KEY, "-days", DAYS, "-subj", "/CN=peers", "-keyout", "ca.key", "-out", "ca.pem")
    _issue(directory, "server", "localhost", ["subjectAltName=DNS:localhost,IP:127.0.0.1", "extendedKeyUsage=serverAuth"])
    _issue(directory, "client", CLIENT, ["extendedKeyUsage=clientAuth"])


def _issue(directory: Path, file, name, extensions):
    authority = ["-CA", "ca.pem", "-CAkey", "ca.key", "-days", DAYS]
    constraints = [word for extension in [*extensions, "basicConstraints=CA:FALSE"] for word in ("-addext", extension)]
    _openssl(
        directory, "req", "-x509", *authority, *KEY, "-subj", f"/CN={name}", *constraints, "-keyout", f"{file}.key", "-out", f"{file}.pem"
    )


def _openssl(directory, *arguments):
    done = subprocess.run(["openssl", *arguments], cwd=directory, capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(f"peers: openssl {arguments[0]} failed:\n{done.stderr}")
