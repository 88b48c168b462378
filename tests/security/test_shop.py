"""The shop has certificates from the first `shopctl up`, and everybody shows one."""

import json
import os
import re
import socket
import ssl
import subprocess
import sys
from pathlib import Path

import grpc
import pytest

from services import topology
from shopctl.errors import ExitCode
from tests.security.shop import SecureShop, secure_shop
from tests.support.ports import free_offset
from tests.support.wait import until_sync


@pytest.mark.parametrize("how", ["orchestrated", "choreographed"])
def test_an_order_is_seen_through(shop: SecureShop, how: str) -> None:
    """Every call on its way is made with certificates, by commands as well."""
    assert shop.order("--fulfilment", how)["status"].endswith("CONFIRMED")
    states = json.loads(shop.say("status", "--json"))
    assert states["serving"]


def test_the_supervisor_makes_everybodys_certificate(shop: SecureShop) -> None:
    """Each service gets the folder of its own, and no word that it may go without."""
    shown = map(json.loads, shop.say("certs", "show", "--json").splitlines())
    valid = {row["name"] for row in shown if row["state"] == "valid"}
    assert valid >= {"root", "intermediate", *topology.SERVICES, "operator", "broker"}
    for name in (*topology.SERVICES, *topology.GATEWAYS):
        said = " ".join(line["msg"] for line in shop.mesh.logged(name))
        assert "serving on" in said
        assert "WITHOUT TLS" not in said


@pytest.mark.parametrize("name", topology.SERVICES)
def test_nobody_serves_without_a_certificate(shop: SecureShop, name: str) -> None:
    """Neither a plaintext client nor one that trusts the server, and shows nothing, is answered."""
    address = topology.address(name, shop.mesh.offset)
    roots = (shop.home / "certs" / name / "ca.crt").read_bytes()
    for channel in (
        grpc.insecure_channel(address),
        grpc.secure_channel(address, grpc.ssl_channel_credentials(roots)),
    ):
        with channel, pytest.raises(grpc.RpcError) as raised:
            channel.unary_unary("/grpc.health.v1.Health/Check", bytes, bytes)(b"", timeout=5)
        assert raised.value.code() is grpc.StatusCode.UNAVAILABLE
    context = ssl.create_default_context(cadata=roots.decode())
    context.set_alpn_protocols(["h2"])
    with socket.create_connection((topology.HOST, topology.port(name, shop.mesh.offset))) as raw:
        found = context.wrap_socket(raw, server_hostname=f"{name}.shop.internal")
        assert found.version() == "TLSv1.3"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('{"payments": ', "does not parse"),
        ('{"payments": {"version": {}}}', "payments.version: is no field; did you mean 'versions'"),
    ],
)
def test_routes_that_are_wrong_keep_a_service_from_starting(
    shop: SecureShop, tmp_path: Path, text: str, says: str
) -> None:
    """One line says what is wrong in the file, and there is no traceback."""
    (tmp_path / "routes.json").write_text(text)
    settings = {
        "MESH_HOME": str(tmp_path / "mesh"),
        "MESH_IDENTITY": str(shop.home / "certs" / "orders"),
        "MESH_INSECURE": "",
        "MESH_ROUTES": str(tmp_path / "routes.json"),
        "LOG_FORMAT": "text",
    }
    command = [sys.executable, "-m", "services.orders"]
    ran = subprocess.run(
        command, env={**os.environ, **settings}, capture_output=True, text=True, timeout=60
    )
    assert ran.returncode == 1
    last = (ran.stdout + ran.stderr).splitlines()[-1]
    assert f"CRITICAL {tmp_path / 'routes.json'}: {says}" in last


def test_a_service_that_ends_leaves_no_socket(shop: SecureShop, tmp_path: Path) -> None:
    """The folder of its control plane is there while it serves, for its user alone, then gone."""
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    settings = {
        "MESH_HOME": str(tmp_path / "mesh"),
        "MESH_IDENTITY": str(shop.home / "certs" / "orders"),
        "MESH_INSECURE": "",
        "MESH_PORT_OFFSET": str(free_offset()),
        "TMPDIR": str(temporary),
    }
    command = [sys.executable, "-m", "services.orders"]
    with subprocess.Popen(
        command,
        env={**os.environ, **settings},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        until_sync(lambda: list(temporary.glob("accord-xds-*/ads")), "the socket")
        (folder,) = temporary.glob("accord-xds-*")
        assert folder.stat().st_mode & 0o077 == 0
        until_sync((tmp_path / "mesh" / "orders.db").exists, "the service")
        process.terminate()
        assert process.wait(60) == 0
    assert not list(temporary.iterdir())


def test_the_lines_for_grpcurl_work_when_pasted(shop: SecureShop) -> None:
    """What `up` prints is an order over gRPC, by the operator's certificate."""
    lines = re.findall(r"^  (.*(?:grpcurl).*)$", shop.hints(), re.MULTILINE)
    assert len(lines) == 5
    assert all("-cacert" in line and "-plaintext" not in line for line in lines)
    script = "set -eo pipefail\n" + "\n".join(lines)
    done = subprocess.run(
        ["bash", "-c", script], capture_output=True, text=True, timeout=60, check=False
    )
    assert "ORDER_STATUS_CONFIRMED" in done.stdout, done.stderr


def test_a_command_says_what_to_do_without_a_certificate(shop: SecureShop, tmp_path: Path) -> None:
    """None, one of another shop, and a shop that is called without TLS: one line each."""
    place = ("--port-offset", str(shop.mesh.offset), "product", "list")
    command = (place[2], place[3], *place[:2])
    done = shop.run(*command, MESH_HOME=str(tmp_path))
    assert "no certificate of operator in" in done.stderr
    assert "shopctl certs init" in done.stderr
    assert shop.run("certs", "init", "--home", str(tmp_path / "other")).returncode == 0
    done = shop.run(*command, MESH_HOME=str(tmp_path / "other"))
    assert "may be revoked or of another shop" in done.stderr
    assert done.returncode == ExitCode.NOT_RUNNING
    done = shop.run(*command, MESH_INSECURE="1")
    assert done.returncode == ExitCode.NOT_RUNNING


def test_without_tls_it_says_so_loudly(tmp_path: Path) -> None:
    """`MESH_INSECURE=1 shopctl up` is plaintext; commands know that from the shop itself."""
    with secure_shop(tmp_path / "home", MESH_INSECURE="1") as shop:
        assert "WITHOUT TLS" in shop.mesh.output.read_text()
        assert "-plaintext" in shop.hints()
        assert shop.order()["status"].endswith("CONFIRMED")
        warned = [line for line in shop.mesh.logged("orders") if line["level"] == "warning"]
        assert any("WITHOUT TLS" in line["msg"] for line in warned)
    assert not (tmp_path / "home" / "certs").exists()


def test_certificates_of_somebody_else_must_be_complete(shop: SecureShop, tmp_path: Path) -> None:
    """With another authority's files nothing is made, and what is missing is named."""
    (tmp_path / "certs" / "orders").mkdir(parents=True)
    (tmp_path / "certs" / "orders" / "svid.pem").touch()
    tmp_path.chmod(0o700)
    words = ("up", "--home", str(tmp_path), "--port-offset", str(free_offset()))
    done = shop.run(*words)
    assert "are not ours" in done.stderr
    assert "none for payments" in done.stderr
