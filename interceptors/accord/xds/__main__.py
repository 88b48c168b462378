"""A control plane for a fleet, of a file of routes: `python -m accord.xds --routes FILE`."""

import argparse
import logging
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from threading import Event

from accord.identity import Identity, IdentityError
from accord.xds.plane import ControlPlane
from accord.xds.routes import RouteError


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until SIGTERM or SIGINT; 2: it cannot be."""
    parser = argparse.ArgumentParser(prog="python -m accord.xds", description=__doc__)
    parser.add_argument("--routes", type=Path, required=True, help="read again when it changes")
    parser.add_argument("--listen", required=True, help="unix:/run/accord/xds, or 0.0.0.0:9070")
    parser.add_argument("--identity", type=Path, required=True, help="folder of its certificate")
    given = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    local = given.listen.startswith("unix:")
    try:
        identity = Identity.from_folder(given.identity)
        plane = ControlPlane(identity.trust_domain, routes=given.routes)
        port = plane.serve(given.listen, None if local else identity.server_credentials(), "")
    except (IdentityError, RouteError, RuntimeError) as error:
        print(f"accord.xds: {error}", file=sys.stderr)
        return 2
    print(f"accord.xds: serves {given.listen}" if local else f"accord.xds: serves port {port}")
    sys.stdout.flush()
    ended = Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    ended.wait()
    plane.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
