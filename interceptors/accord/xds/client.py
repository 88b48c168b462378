"""A process's way to its targets by xDS: mutual TLS that renews itself, and endpoints by push.

gRPC reads its bootstrap from the environment of the process, once for all channels: so there is one
identity, and one control plane, for as long as a channel of it is open.
"""

import gc
import json
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Final

import grpc

from accord.identity import Identity
from accord.xds.plane import ControlPlane, TargetState
from accord.xds.presence import Presence
from accord.xds.resources import PROVIDER
from accord.xds.routes import Route, check_name

CONFIG: Final = "GRPC_XDS_BOOTSTRAP_CONFIG"
FILE: Final = "GRPC_XDS_BOOTSTRAP"
"""The environment variables in which gRPC looks for a bootstrap; FILE wins."""

REFRESH: Final = "0.5s"
"""Time between two looks at the files of the identity, as gRPC has it."""

_LEAVES: Final = 1.0
"""Seconds in which gRPC forgets a bootstrap after its last channel is closed: it takes some ms, and
longer where a connection is being tried."""


class XdsError(ValueError):
    """What cannot be had by xDS in this process, in one line."""


@dataclass(slots=True)
class _Process:
    """What all meshes of the process share."""

    given: tuple[tuple[Path, Path, Path], Path | None, str | None]
    """Files of the identity, file of routes, address of a control plane elsewhere."""
    plane: ControlPlane | None = None
    folder: "tempfile.TemporaryDirectory[str] | None" = None
    users: int = 0

    def ended(self) -> bool:
        """End it, if no channel is left; False: gRPC still has one."""
        if self.plane is None:
            return True
        gc.collect()  # a call that has failed may keep its channel until then
        if not self.plane.unused(_LEAVES):
            return False
        self.plane.stop()
        if self.folder is not None:
            self.folder.cleanup()
        return True


_lock: Final = Lock()
_process: _Process | None = None


class XdsClient:
    """What one mesh uses of it, until it is closed.

    `control_plane` is the address of one that serves a fleet, "unix:/run/accord/xds" or a host and
    a port, where it has a certificate of the same authority; None: one in this process, on a socket
    that only its user can open, which has the targets of the mesh and obeys the file `routes`. A
    bootstrap in the environment that is not ours is left alone and used: then its control plane has
    the targets, "xds:///...", and its certificates are the process's.

    Raises XdsError: the process has another identity or control plane by now. RouteError: the file
    of routes is wrong.
    """

    def __init__(
        self,
        identity: Identity,
        *,
        routes: Path | str | None = None,
        control_plane: str | None = None,
    ) -> None:
        self._identity = identity
        self._process: _Process | None = None
        self._presence: Presence | None = None
        self._named: dict[str, str] = {}
        self._foreign = _foreign()
        if self._foreign:
            if routes is not None or control_plane is not None:
                raise XdsError(
                    f"{self._foreign} is set, and says which control plane there is: neither"
                    " `routes` nor `control_plane` can be kept"
                )
            return
        if routes is not None and control_plane is not None:
            raise XdsError("`routes` are given to the control plane, which is another process's")
        self._process = _join(identity, None if routes is None else Path(routes), control_plane)
        if control_plane is not None:
            shown = None if control_plane.startswith("unix:") else identity  # as in `_begun`
            self._presence = Presence(control_plane, shown)

    def target(self, name: str, address: str, health: str | None) -> str:
        """What gRPC is to open a channel to.

        `address` is that of the target, and `health` the service whose health is watched, for a
        control plane in this process; one that is a target of xDS already, "xds:///x", is left so.

        Raises XdsError, or RouteError for what is no address.
        """
        if address.startswith("xds:"):
            return address
        if self._foreign:
            raise XdsError(
                f"{name!r}: {self._foreign} is set: a target is named by its control plane,"
                " 'xds:///NAME'"
            )
        plane = self._plane
        routed = name == address and (plane is None or plane.knows(name))
        if name == address and (":" in name or not routed):
            raise XdsError(
                f"{name!r}: with an identity a target has a name, by which its server is known:"
                " give it one in `targets`"
            )
        check_name(name)
        if plane is None or routed:
            return f"xds:///{name}"
        if name not in self._named:
            self._named[name] = plane.add(name, Route({"v1": address}, health=health))
        return f"xds:///{self._named[name]}"

    def credentials(self) -> grpc.ChannelCredentials:
        """Those of a channel by xDS; its servers are verified as the control plane says."""
        certificate, key, roots = (file.read_bytes() for file in self._identity.files)
        # For clusters of a foreign control plane that say nothing of TLS: never plaintext.
        return grpc.xds_channel_credentials(grpc.ssl_channel_credentials(roots, key, certificate))

    @property
    def _plane(self) -> ControlPlane | None:
        """The control plane, if it is in this process."""
        return None if self._process is None else self._process.plane

    def state(self) -> list[TargetState]:
        """The targets of the control plane in this process; empty where it is another's."""
        return [] if self._plane is None else self._plane.state()

    def problems(self) -> list[str]:
        """Why the file of routes is not obeyed, what gRPC has refused, and who is away."""
        if self._presence is not None:
            return [found] if (found := self._presence.problem) else []
        return [] if self._plane is None else self._plane.problems()

    def close(self) -> None:
        """Be done. What the process shares stays for others, until one wants something else."""
        if self._presence is not None:
            self._presence.closed.set()
        process, self._process = self._process, None
        if process is not None:
            with _lock:
                process.users -= 1
            if process.plane is not None:
                process.plane.remove(self._named.values())


def remove_socket() -> None:
    """Remove the socket of the control plane in this process, and its folder.

    For whoever ends the process by `os._exit`, when all meshes are closed: no other way leaves any.
    """
    with _lock:
        if _process is not None and _process.folder is not None:
            _process.folder.cleanup()


def _foreign() -> str:
    """The variable with a bootstrap that is not ours; "": there is none."""
    if os.environ.get(FILE):
        return FILE
    text = os.environ.get(CONFIG)
    if not text:
        return ""
    try:
        return "" if json.loads(text)["node"]["cluster"].startswith("accord/") else CONFIG
    except (ValueError, KeyError, TypeError, AttributeError):
        return CONFIG


def _join(identity: Identity, routes: Path | None, server: str | None) -> _Process:
    """Take part in what the process has. Raises XdsError."""
    global _process
    with _lock:
        process = _process
        wanted = (identity.files, routes, server)
        if process is not None and process.given != wanted:
            if process.users or not process.ended():
                raise XdsError(_other(process, identity))
            process = None
        if process is None:
            process = _process = _begun(identity, routes, server)
        process.users += 1
        return process


def _other(process: _Process, identity: Identity) -> str:
    if process.given[0] == identity.files:
        return "this process has another control plane by now, or other `routes`"
    return (
        f"this process calls as the identity of {process.given[0][0].parent}, and gRPC has one for"
        f" all its channels: {identity.id} needs a process of its own"
    )


def _begun(identity: Identity, routes: Path | None, server: str | None) -> _Process:
    found = _Process((identity.files, routes, server))
    at, secure = server or "", server is not None and not server.startswith("unix:")
    if server is None:
        found.plane = ControlPlane(identity.trust_domain, routes=routes)
        # Of its user alone, as the socket in it.
        found.folder = tempfile.TemporaryDirectory(prefix="accord-xds-", ignore_cleanup_errors=True)
        at = f"unix:{found.folder.name}/ads"
        found.plane.serve(at, None, identity.id)
    os.environ[CONFIG] = json.dumps(bootstrap(identity, at, secure=secure))
    return found


def bootstrap(identity: Identity, server: str, *, secure: bool) -> dict[str, object]:
    """The bootstrap of gRPC's client. Source: gRFC A27, A29, A65.

    `secure`: mutual TLS to the control plane, which must have a certificate for its address.
    """
    certificate, key, roots = map(str, identity.files)
    files = {
        "certificate_file": certificate,
        "private_key_file": key,
        "ca_certificate_file": roots,
        "refresh_interval": REFRESH,
    }
    channel = {"type": "tls", "config": files} if secure else {"type": "insecure"}
    return {
        "xds_servers": [
            {
                "server_uri": server,
                "channel_creds": [channel],
                "server_features": ["xds_v3", "ignore_resource_deletion"],
            }
        ],
        # By its cluster a child knows that it has inherited this, and that nobody has set it.
        "node": {"id": identity.id, "cluster": f"accord/{os.getpid()}"},
        "certificate_providers": {
            PROVIDER: {"plugin_name": "file_watcher", "config": files},
        },
    }
