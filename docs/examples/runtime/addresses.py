"""Where the processes listen."""

from accord_runtime.settings import Addresses

PORTS = {"desk": 9080, "depot": 9081}


def addresses(offset: int) -> Addresses:
    """With `offset` (MESH_PORT_OFFSET) added to every port."""
    services = {name: f"127.0.0.1:{port + offset}" for name, port in PORTS.items()}
    return Addresses(services, broker=f"127.0.0.1:{4222 + offset}")
