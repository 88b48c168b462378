"""The bootstrap of Envoy as the edge: what is in it, what is refused, and TLS inward.

What it does with requests is in `gateways/`, which asks the same of `accord.edge`.
"""

import json
import re
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import httpx
import pytest
from google.api import annotations_pb2
from google.protobuf import descriptor_pb2

from accord.identity import Identity
from accord_checks import Refused
from accord_checks.export import envoy_edge
from accord_checks.export.http_annotations import annotated
from accord_checks.export.resolved_contracts import ResolvedContracts
from tests.accord.edge.kit import Issuer, echo, upstream
from tests.accord.identity.authority import Authority
from tests.contracts.export import support
from tests.contracts.export.gateways.kit import envoy, exported
from tests.support.ports import free_port
from tests.support.wait import until

TARGETS: Final = tuple(f"--target={name}=a:1" for name in ("customers", "inventory", "orders"))


def shop(folder: Path, *options: str) -> Path:
    """The bootstrap of the shop."""
    issuer = Issuer(folder / "jwks.json")
    return exported(folder, support.shop_image(), issuer, *TARGETS, *options)


def validated(file: Path) -> subprocess.CompletedProcess[str]:
    """What Envoy says of a bootstrap."""
    return subprocess.run(
        (support.SCRIPTS / "envoy", "--mode", "validate", "-c", file),
        capture_output=True,
        text=True,
        check=False,
    )


def test_routes_are_annotated_for_gateways() -> None:
    """What has a route has `google.api.http` with verb, path and body; nothing else has."""
    contracts = ResolvedContracts(support.shop_image())
    made = descriptor_pb2.FileDescriptorSet.FromString(annotated(contracts).SerializeToString())
    found = {}
    for file in made.file:
        for service in file.service:
            for method in service.method:
                if method.options.HasExtension(annotations_pb2.http):
                    rule = method.options.Extensions[annotations_pb2.http]
                    verb = rule.WhichOneof("pattern") or ""
                    found[f"{file.package}.{service.name}/{method.name}"] = (
                        verb.upper(),
                        getattr(rule, verb),
                        rule.body,
                    )
    assert found == {
        rpc.name: (edge.verb, edge.path, "" if edge.verb == "GET" else "*")
        for rpc, edge in contracts.routes()
    }
    assert ResolvedContracts(made).routes()
    again = annotated(ResolvedContracts(made))
    assert sorted(it.name for it in again.file) == sorted(it.name for it in made.file)


def test_envoy_accepts_the_bootstrap(tmp_path: Path) -> None:
    """`envoy --mode validate` takes all of it, listener, filters and clusters, also with TLS."""
    assert validated(shop(tmp_path, "--target=orders=b:2")).returncode == 0
    folder = tmp_path / "certs"
    folder.mkdir()
    tls = (
        "--certs",
        str(folder),
        "--trust-domain=shop.internal",
        "--allow-origin=https://a.example",
    )
    done = validated(shop(tmp_path, "--admin-port=9901", *tls))
    assert done.returncode == 0, done.stderr
    broken = json.loads((tmp_path / "edge.json").read_text())
    broken["static_resources"]["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"][
        "http_filters"
    ][4]["typed_config"]["stat_prefix"] = ""
    (tmp_path / "broken.json").write_text(json.dumps(broken))
    assert validated(tmp_path / "broken.json").returncode != 0


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--jwks=a"], "needs --issuer"),
        (["--jwks=a", "--issuer=b", "--audience=c"], "customers=HOST:PORT"),
        (["--jwks=a", "--issuer=b", "--audience=c", "--certs=."], "needs --trust-domain"),
        (["--jwks=a", "--issuer=b", "--audience=c", "--target=orders"], "SERVICE=HOST:PORT"),
    ],
)
def test_what_is_missing_is_named(tmp_path: Path, options: Sequence[str], said: str) -> None:
    """An edge without keys, names or targets is refused in one line."""
    image = tmp_path / "shop.binpb"
    image.write_bytes(support.shop_image().SerializeToString())
    done = support.run("contracts", "export", "envoy", image, "--edge", *options)
    assert done.returncode == 1
    assert said in done.stderr.decode()
    assert done.stderr.count(b"\n") == 1


async def test_inward_both_sides_show_who_they_are(tmp_path: Path) -> None:
    """The service sees the identity of the edge; a server of another identity gets nothing."""
    ca, folder = Authority(), tmp_path / "certs"
    ca.issue("spiffe://shop.internal/edge").write(folder)
    issuer, port = Issuer(tmp_path / "jwks.json"), free_port()
    tls = ("--certs", str(folder), "--trust-domain=shop.internal", f"--admin-port={port}")
    for name, status, stat in (
        ("accordtest", 200, "health_check.success"),
        ("payments", 503, "ssl.fail_verify_san"),
    ):
        leaf = ca.issue(f"spiffe://shop.internal/{name}")
        identity = Identity.from_folder(leaf.write(tmp_path / name))
        async with (
            upstream({"FindParcels": echo}, identity) as (upstreams, _),
            envoy(tmp_path, issuer, upstreams, *tls) as listening,
            httpx.AsyncClient() as http,
        ):

            async def told(what: str = stat, http: httpx.AsyncClient = http) -> bool:
                url = f"http://127.0.0.1:{port}/stats?filter=ParcelService.*{what}"
                try:
                    return bool(re.search(r": [1-9]", (await http.get(url)).text))
                except httpx.TransportError:
                    return False

            await until(told, stat)
            answer = await http.get(f"http://127.0.0.1:{listening}/v1/parcels")
        assert answer.status_code == status
        identity.close()


def test_a_service_without_a_target_is_named() -> None:
    """Of the library itself, too."""
    setting = envoy_edge.Setting(jwks="a", issuer="b", audience="c", targets={})
    with pytest.raises(Refused, match="--target"):
        envoy_edge.export(ResolvedContracts(support.shop_image()), setting)
