"""`accord contracts export TARGET SOURCE`: write down the contracts for somebody else's tool."""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from accord_checks.refused import Refused

if TYPE_CHECKING:
    from accord_checks.cli import Commands
    from accord_checks.export.catalog import Catalog

    Make: TypeAlias = Callable[[Catalog, argparse.Namespace], str]


def register(commands: "Commands") -> None:
    """Add the command."""
    export = commands.add_parser("export", help="write the contracts down for other tools")
    targets = export.add_subparsers(required=True, metavar="TARGET")

    target = _add(targets, "service-config", "gRPC service config: timeouts and retries", _config)
    target.add_argument(
        "--no-timeouts",
        action="store_true",
        help="leave timeouts out, for gRPC's C-core (Python, Ruby, PHP, C++)",
    )
    target = _add(targets, "asyncapi", "AsyncAPI 3 document of the events", _asyncapi)
    target.add_argument("--title", default="Events", help="what the document is called")
    target.add_argument("--release", default="unreleased", help="version of the contracts")
    target = _add(targets, "reference", "one HTML page of everything", _reference)
    target.add_argument("--title", default="Contracts", help="what the page is called")
    _add(targets, "envoy", "Envoy routes: timeouts and retries", _envoy)
    target = _add(targets, "protoset", "image for `grpcurl -protoset`", None)
    target.set_defaults(run=_run_protoset)


def _add(
    targets: "Commands", name: str, about: str, make: "Make | None"
) -> argparse.ArgumentParser:
    target = targets.add_parser(name, help=about, description=about)
    target.add_argument(
        "source", nargs="?", default=".", help="folder or image of the contracts (default: .)"
    )
    target.add_argument("-o", "--out", type=Path, help="file to write (default: standard output)")
    target.set_defaults(run=_run, make=make)
    return target


def _run(arguments: argparse.Namespace) -> int:
    from accord_checks import image
    from accord_checks.export.catalog import Catalog

    make: Make = arguments.make
    return _write(arguments, make(Catalog(image.read(arguments.source)), arguments).encode())


def _run_protoset(arguments: argparse.Namespace) -> int:
    from accord_checks import image
    from accord_checks.export import protoset

    return _write(arguments, protoset.export(image.read(arguments.source)))


def _write(arguments: argparse.Namespace, made: bytes) -> int:
    out: Path | None = arguments.out
    if out is None:
        if sys.stdout is None:
            raise Refused("standard output is closed: name a file with -o")
        sys.stdout.buffer.write(made)
        sys.stdout.buffer.flush()
    else:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_bytes(made)
    return 0


def _config(catalog: "Catalog", arguments: argparse.Namespace) -> str:
    from accord_checks.export import service_config

    return service_config.export(catalog, timeouts=not arguments.no_timeouts)


def _asyncapi(catalog: "Catalog", arguments: argparse.Namespace) -> str:
    from accord_checks.export import asyncapi

    return asyncapi.export(catalog, title=arguments.title, release=arguments.release)


def _reference(catalog: "Catalog", arguments: argparse.Namespace) -> str:
    from accord_checks.export.reference import page

    return page.export(catalog, title=arguments.title)


def _envoy(catalog: "Catalog", _: argparse.Namespace) -> str:
    from accord_checks.export import envoy

    return envoy.export(catalog)
