"""`accord contracts export TARGET SOURCE`: write down the contracts for somebody else's tool."""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

from accord_checks import Refused, image
from accord_checks.export import asyncapi, envoy, openapi, service_config
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
    add("envoy", "Envoy routes: timeouts and retries", lambda found, _: envoy.export(found))
    # The whole FileDescriptorSet, imports and comments included, as `protoc --descriptor_set_out`
    # and `buf build` write it; all other exports read it too.
    add("protoset", "image for `grpcurl -protoset`", None)


def run(arguments: argparse.Namespace) -> int:
    """Write one export, to a file or to standard output. Raises Refused."""
    found, out = image.read(arguments.source), arguments.out
    export: Export | None = arguments.export
    if export is None:
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
