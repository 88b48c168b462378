"""`accord contracts export TARGET SOURCE`: write down the contracts for somebody else's tool."""

import argparse
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

from accord_checks import Refused, image
from accord_checks.export import (
    asyncapi,
    envoy,
    envoy_edge,
    http_annotations,
    openapi,
    prometheus,
    service_config,
)
from accord_checks.export.reference import page
from accord_checks.export.resolved_contracts import ResolvedContracts

Export: TypeAlias = Callable[[ResolvedContracts, argparse.Namespace], str]


def register(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command."""
    export = commands.add_parser("export", help="write the contracts down for other tools")
    targets = export.add_subparsers(required=True, metavar="TARGET")

    def add(name: str, about: str, export: Export | None) -> argparse.ArgumentParser:
        target = targets.add_parser(name, help=about, description=about)
        target.add_argument(
            "source", nargs="?", default=".", help="folder or image of the contracts (default: .)"
        )
        target.add_argument(
            "-o", "--out", type=Path, help="file to write (default: standard output)"
        )
        target.set_defaults(run=run, export=export)
        return target

    target = add(
        "service-config",
        "gRPC service config: timeouts and retries",
        lambda found, given: service_config.export(found, timeouts=not given.no_timeouts),
    )
    target.add_argument(
        "--no-timeouts",
        action="store_true",
        help="leave timeouts out, for gRPC's C-core (Python, Ruby, PHP, C++)",
    )
    target = add(
        "asyncapi",
        "AsyncAPI 3 document of the events",
        lambda found, given: asyncapi.export(found, title=given.title, release=given.release),
    )
    target.add_argument("--title", default="Events", help="what the document is called")
    target.add_argument("--release", default="unreleased", help="version of the contracts")
    target = add(
        "openapi",
        "OpenAPI 3.1 document of what is reached from outside",
        lambda found, given: openapi.export(
            found,
            title=given.title,
            release=given.release,
            servers=given.server or ("/",),
        ),
    )
    target.add_argument("--title", default="API", help="what the document is called")
    target.add_argument("--release", default="unreleased", help="version of the contracts")
    target.add_argument(
        "--server", action="append", metavar="URL", help="where it is served (default: /)"
    )
    target = add(
        "reference",
        "one HTML page of everything",
        lambda found, given: page.export(found, title=given.title),
    )
    target.add_argument("--title", default="Contracts", help="what the page is called")
    _register_edge(add("envoy", "Envoy routes: timeouts and retries; --edge: all of it", _envoy))
    add("prometheus-rules", "alerting rules (JSON)", lambda found, _: prometheus.rules(found))
    add("grafana-dashboard", "dashboard (JSON)", lambda found, _: prometheus.dashboard(found))
    # The whole FileDescriptorSet, imports and comments included, as `protoc --descriptor_set_out`
    # and `buf build` write it; all other exports read it too.
    target = add("protoset", "image for `grpcurl -protoset`", None)
    target.add_argument(
        "--http", action="store_true", help="with `google.api.http` where there is a route"
    )


def _register_edge(envoy: argparse.ArgumentParser) -> None:
    envoy.add_argument("--edge", action="store_true", help="a whole bootstrap, for the edge")
    edge = envoy.add_argument_group("with --edge")
    edge.add_argument("--jwks", metavar="FILE", help="public keys of who issues tokens")
    edge.add_argument("--issuer", help="`iss` of tokens")
    edge.add_argument("--audience", help="`aud` of tokens")
    edge.add_argument("--host", default="0.0.0.0", help="where to listen (default: everywhere)")
    edge.add_argument("--port", type=int, default=8080, help="where to listen (default: 8080)")
    edge.add_argument("--admin-port", type=int, help="Envoy's own interface, on loopback")
    edge.add_argument(
        "--target",
        action="append",
        default=[],
        metavar="SERVICE=HOST:PORT",
        help='a replica of a service, such as "orders" of "shop.orders.v1.OrderService"',
    )
    edge.add_argument(
        "--allow-origin", action="append", default=[], help="whose pages may call from a browser"
    )
    edge.add_argument(
        "--certs",
        metavar="DIR",
        help="folder with tls.crt, tls.key and ca.crt: mutual TLS inward; two files for its secrets"
        " are written beside the one that -o names",
    )
    edge.add_argument("--trust-domain", help="of the identities of services, with --certs")


def _envoy(found: ResolvedContracts, given: argparse.Namespace) -> str:
    if not given.edge:
        return envoy.export(found)
    wanted = ["jwks", "issuer", "audience", *(["trust_domain", "out"] if given.certs else [])]
    if missing := [name for name in wanted if not getattr(given, name)]:
        raise Refused(f"an edge needs --{missing[0].replace('_', '-')}, see --help")
    targets: dict[str, list[str]] = {}
    for target in given.target:
        service, _, address = target.partition("=")
        if not re.fullmatch(r".+:\d{1,5}", address):
            raise Refused(f"--target {target} is none of SERVICE=HOST:PORT")
        targets.setdefault(service, []).append(address)
    beside = str(given.out.absolute().with_suffix("")) if given.certs else ""
    if given.certs:
        given.out.parent.mkdir(parents=True, exist_ok=True)
        for file, text in envoy_edge.secrets(os.path.abspath(given.certs), beside).items():
            Path(file).write_text(text)
    setting = envoy_edge.Setting(
        jwks=given.jwks,
        issuer=given.issuer,
        audience=given.audience,
        targets=targets,
        host=given.host,
        port=given.port,
        admin=given.admin_port,
        origins=given.allow_origin,
        secrets=beside,
        trust_domain=given.trust_domain or "",
    )
    return envoy_edge.export(found, setting)


def run(arguments: argparse.Namespace) -> int:
    """Write one export, to a file or to standard output. Raises Refused."""
    found, out = image.read(arguments.source), arguments.out
    export: Export | None = arguments.export
    if export is None:
        if arguments.http:
            found = http_annotations.annotated(ResolvedContracts(found))
        made = found.SerializeToString(deterministic=True)
    else:
        made = export(ResolvedContracts(found), arguments).encode()
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_bytes(made)
    elif sys.stdout is None:
        raise Refused("standard output is closed: name a file with -o")
    else:
        sys.stdout.buffer.write(made)
        sys.stdout.buffer.flush()
    return 0
