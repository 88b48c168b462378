"""A PostgreSQL server that knows services by their certificates.

The servers of the wheels have no TLS; Debian's has, installed or unpacked: POSTGRES_BIN is its bin.
"""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final

import psycopg
import pytest

from accord_runtime.database import open_database
from accord_runtime.database.migrations import migrate
from shopctl.certs import files
from shopctl.certs.authority import Authority
from shopctl.certs.certificates import serial
from tests.support.ports import free_port

OWNER: Final = "nobody" if os.geteuid() == 0 else None
"""The server refuses to run as root."""


def find_binaries() -> Path | None:
    """The newest server with TLS that there is."""
    named = os.environ.get("POSTGRES_BIN", "")
    found = [Path(named)] if named else sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    return next((each for each in reversed(found) if (each / "initdb").exists()), None)


@contextmanager
def server(
    binaries: Path, authority: Authority, roles: Iterable[str] = ("orders", "payments")
) -> Iterator[tuple[int, Callable[[], None]]]:
    """A server with a role for each service: its port, and what renews its certificate."""
    folder = Path(tempfile.mkdtemp(prefix="pg-"))

    def run(name: str, *words: str, **options: Any) -> None:
        command = [str(binaries / name), *words]
        subprocess.run(command, user=OWNER, check=True, stdout=subprocess.DEVNULL, **options)

    try:
        data = folder / "data"
        if OWNER:
            shutil.chown(folder, OWNER)
        run("initdb", "-D", str(data), "-A", "trust", "-U", "postgres", "--no-sync")
        refresh(authority, folder)
        (data / "pg_hba.conf").write_text(
            "local all postgres trust\nhostssl all all 127.0.0.1/32 cert map=mesh\n"
        )
        (data / "pg_ident.conf").write_text("".join(f"mesh {role} {role}\n" for role in roles))
        settings = {
            "ssl": "on",
            "ssl_cert_file": f"'{folder}/tls.crt'",
            "ssl_key_file": f"'{folder}/tls.key'",
            "ssl_ca_file": f"'{folder}/ca.crt'",
            "unix_socket_directories": f"'{folder}'",
            "fsync": "off",
        }
        with (data / "postgresql.conf").open("a") as file:
            file.writelines(f"{name} = {value}\n" for name, value in settings.items())
        port = start(partial(run, cwd=folder), data, folder / "log")
        try:
            admin = psycopg.connect(f"host={folder} port={port} user=postgres", autocommit=True)
            with admin:
                admin.execute("CREATE DATABASE shop")
                for role in roles:
                    admin.execute(f"CREATE ROLE {role} LOGIN")
                    admin.execute(f"GRANT CREATE ON DATABASE shop TO {role}")

                def renew() -> None:
                    refresh(authority, folder)
                    admin.execute("SELECT pg_reload_conf()")

                yield port, renew
        finally:
            run("pg_ctl", "-D", str(data), "-m", "immediate", "stop", cwd=folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def start(run: Callable[..., None], data: Path, log: Path) -> int:
    """Start the server; returns its port, which somebody else may take before it does."""
    for _ in range(3):
        port = free_port()
        try:
            run("pg_ctl", "-D", str(data), "-l", str(log), "-o", f"-p {port}", "-w", "start")
        except subprocess.CalledProcessError:
            continue
        return port
    raise AssertionError(log.read_text())


def refresh(authority: Authority, folder: Path) -> None:
    """Give the server its certificate of now."""
    for name in (files.CERTIFICATE, files.KEY, files.ROOTS):
        shutil.copy2(authority.folder / "database" / name, folder / name)
        if OWNER:
            shutil.chown(folder / name, OWNER)


def url(authority: Authority, port: int, role: str, name: str, mode: str = "verify-full") -> str:
    """As docs/certificates.md has it: for `role` by the certificate of `name`."""
    own = authority.folder / name
    return (
        f"postgresql://{role}@127.0.0.1:{port}/shop?sslmode={mode}"
        f"&sslcert={own}/tls.crt&sslkey={own}/tls.key&sslrootcert={own}/ca.crt"
    )


async def test_a_service_is_its_certificate(tmp_path: Path) -> None:
    """Its own role is let in, with nobody's password; after a rotation by the new certificate."""
    binaries = find_binaries()
    if binaries is None:
        pytest.skip("no PostgreSQL with TLS")
    authority = Authority(tmp_path / "certs")
    authority.prepare(["orders", "payments", "stranger", "database"])
    with server(binaries, authority) as (port, _):
        own = url(authority, port, "orders", "orders")
        database = await open_database(own, "orders")
        try:
            await migrate(database, "orders", ["CREATE TABLE kept (id BIGINT PRIMARY KEY)"])
            await database.write(lambda tx: tx.insert("kept", {"id": 1}))
            for role, name, mode, says in (
                ("payments", "orders", "verify-full", "certificate authentication failed"),
                ("orders", "stranger", "verify-full", "certificate authentication failed"),
                ("orders", "orders", "disable", "no pg_hba.conf entry"),
            ):
                with pytest.raises(psycopg.OperationalError, match=says):
                    psycopg.connect(url(authority, port, role, name, mode))
            before = shown(own)
            authority.issue(["orders"])
            assert shown(own) == now(authority) != before
            # Sessions that are open go on, and are not asked again.
            assert await database.read(lambda tx: tx.value("SELECT id FROM kept")) == 1
        finally:
            await database.close()


def shown(url: str) -> str:
    """The serial of the certificate that the server sees in a new session."""
    with psycopg.connect(url) as connection:
        sql = "SELECT client_serial FROM pg_stat_ssl WHERE pid = pg_backend_pid()"
        row = connection.execute(sql).fetchone()
        assert row is not None
        return f"{int(row[0]):x}"


def now(authority: Authority) -> str:
    """That of the certificate of orders."""
    pair = authority.pair("orders")
    assert pair is not None
    return serial(pair.certificate)
