"""Who has a good certificate is served while others stop in mid-handshake, or have a bad one."""

import asyncio
import socket
import ssl
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import grpc
import grpc.aio
import pytest

from tests.abuse.test_abuse import SECONDS, Honest, serving, used
from tests.accord.identity.authority import Authority
from tests.accord.identity.kit import credentials
from tests.accord.kit import Stub

STALLED: Final = 1000
"""Clients that stop in mid-handshake."""

RATE: Final = 100
"""Handshakes with a certificate of another authority, each second."""

SERVED: Final = 0.99
"""The part of an honest client's calls that is answered."""

KEPT: Final = 64 * 1024
"""Bytes that a handshake may hold which does not go on."""

CA: Final = Authority()


def stall(port: int, folder: Path, stack: ExitStack) -> str:
    """Send half of what begins a handshake, and wait."""
    into, out = ssl.MemoryBIO(), ssl.MemoryBIO()
    begun = _context(folder).wrap_bio(into, out)
    with pytest.raises(ssl.SSLWantReadError):
        begun.do_handshake()
    hello = out.read()
    for _ in range(STALLED):
        connection = stack.enter_context(socket.create_connection(("127.0.0.1", port)))
        connection.sendall(hello[: len(hello) // 2])
    time.sleep(SECONDS)
    return f"{STALLED} clients wait"


def intrude(port: int, folder: Path, stack: ExitStack) -> str:
    """Shake hands with a certificate that the server does not accept, again and again."""
    context, began, tried = _context(folder), time.monotonic(), 0
    while (late := time.monotonic() - began) < SECONDS:
        if late < tried / RATE:
            time.sleep(tried / RATE - late)
        tried += 1
        with socket.create_connection(("127.0.0.1", port)) as raw:
            try:
                with context.wrap_socket(raw) as tls:
                    assert tls.recv(1) == b""
            except (ssl.SSLError, ConnectionError):
                continue
    return f"{tried} handshakes in {SECONDS:.0f} s"


def _context(folder: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.load_cert_chain(folder / "tls.crt", folder / "tls.key")
    context.set_alpn_protocols(["h2"])
    return context


@pytest.mark.slow
@pytest.mark.parametrize("attack", [stall, intrude])
@pytest.mark.parametrize("kind", ["aio", "sync"])
async def test_others_are_served(
    kind: str,
    attack: Callable[[int, Path, ExitStack], str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """At least 99 % of an honest client's calls are answered, and memory is bounded."""
    served = CA.issue("spiffe://shop.internal/payments").write(tmp_path / "server")
    stranger = Authority().issue("spiffe://shop.internal/orders").write(tmp_path / "stranger")
    shown = credentials(CA.issue("spiffe://shop.internal/orders"))
    with serving(kind, str(served)) as (address, process), ExitStack() as stack:
        async with grpc.aio.secure_channel(address, shown) as channel:
            honest, over = Honest(Stub(channel)), asyncio.Event()
            before, spent = await used(honest.stub, process), sum(process.cpu_times()[:2])
            going_on = asyncio.create_task(honest.goes_on(over))
            port = int(address.rpartition(":")[2])
            done = await asyncio.to_thread(attack, port, stranger, stack)
            over.set()
            await going_on
            kept = process.memory_info().rss - before
            spent = sum(process.cpu_times()[:2]) - spent
    with capsys.disabled():
        print(
            f"\n{kind} {attack.__name__}: {done}; {len(honest.lost)} of {honest.calls} calls lost"
            f" during it, {kept / 2**20:.0f} MiB more, {spent:.1f} s of CPU"
        )
    assert len(honest.lost) <= (1 - SERVED) * honest.calls, honest.lost
    assert kept <= STALLED * KEPT
