"""Who knocks at the broker of a shop."""

import ssl

import nats
from nats.aio.client import Client

from services import topology
from tests.security.shop import SecureShop


class Peer:
    """A client of the broker by somebody's certificate, and what it is refused."""

    def __init__(self, shop: SecureShop, name: str) -> None:
        self.refused: list[str] = []
        self._folder = shop.home / "certs" / name
        self._address = topology.address(topology.BROKER, shop.mesh.offset)
        self._name = name

    async def connect(self, *, certificate: bool = True) -> Client:
        context = ssl.create_default_context(cafile=self._folder / "ca.crt")
        if certificate:
            context.load_cert_chain(self._folder / "tls.crt", self._folder / "tls.key")
        return await nats.connect(
            f"tls://{self._address}",
            tls=context,
            tls_handshake_first=True,
            tls_hostname="broker",
            inbox_prefix=f"_INBOX_{self._name}".encode(),
            error_cb=self._note,
            allow_reconnect=False,
            connect_timeout=10,
        )

    async def _note(self, error: Exception) -> None:
        self.refused.append(str(error))
