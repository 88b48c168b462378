"""By whose certificate commands call services, and what is wrong when they cannot."""

import functools
import os
from pathlib import Path
from typing import TYPE_CHECKING

from shopctl.certs import OPERATOR
from shopctl.errors import CommandError
from shopctl.supervisor import state

if TYPE_CHECKING:
    import grpc

    from accord.identity import Identity


def is_insecure(home: Path) -> bool:
    """Whether the shop of a folder goes without TLS: by `MESH_INSECURE=1`, ours or its own."""
    said = os.environ.get("MESH_INSECURE", "")
    run = state.read_run(home)
    return said == "1" or (run is not None and run.insecure)


def identity_of(home: Path, name: str = OPERATOR) -> "Identity | None":
    """The identity `name` of a shop, of which the files are watched; None: it goes without TLS.

    `MESH_IDENTITY` names another folder for the operator's.

    Raises:
        CommandError: there is none, or its certificate is none that anybody would accept.
    """
    if is_insecure(home):
        return None
    own = name == OPERATOR and os.environ.get("MESH_IDENTITY", "")
    folder = Path(own or home / "certs" / name)
    if not folder.is_dir():
        raise CommandError(
            f"no certificate of {name} in {folder}; make it: shopctl certs "
            f"{'init' if name == OPERATOR else f'issue {name}'}, or name the shop: --home"
        )
    from accord.identity import IdentityError  # cryptography takes long to import

    try:
        return _watched(folder)
    except IdentityError as error:
        raise CommandError(f"{error}; renew it: shopctl certs rotate leaf {name}") from None


@functools.cache
def _watched(folder: Path) -> "Identity":
    from accord.identity import Identity

    return Identity.from_folder(folder)


def credentials(identity: "Identity") -> "grpc.ChannelCredentials":
    """What a channel shows of an identity as it is now: commands do not live to see it renewed."""
    import grpc

    now = identity.bundle
    return grpc.ssl_channel_credentials(now.roots, now.key, now.certificate)
