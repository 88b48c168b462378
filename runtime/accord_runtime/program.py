"""One process of a mesh, whatever it serves: settings, identity, background, signals, its end."""

import asyncio
import contextlib
import gc
import logging
import os
import signal
import sys
from collections.abc import Callable, Coroutine
from contextlib import AbstractAsyncContextManager
from typing import Any, Final, NoReturn

import accord
from accord.contract.live_overrides import FileSource, Layer
from accord.identity import Identity, IdentityError
from accord.xds import RouteError, XdsError, remove_socket
from accord_runtime import telemetry
from accord_runtime.grpc.operator_contracts import TAKES_CALLS
from accord_runtime.ports import holder
from accord_runtime.settings import Addresses, Settings
from accord_runtime.telemetry import Telemetry, logs
from accord_runtime.telemetry.metrics_endpoint import ScrapeServer

log = logging.getLogger(__name__)

Background = Callable[[], Coroutine[Any, Any, None]]
"""Something that runs for as long as the process lives."""

Serving = Callable[[Settings, Telemetry], AbstractAsyncContextManager[asyncio.Event]]
"""Serves for as long as the block is not left, then drains; the event says that it has failed."""

CHANNEL_OPTIONS: Final = (
    ("grpc.keepalive_time_ms", 30_000),
    # Connections, and the wait for the next attempt at one, are not shared with what else is in
    # the process: several services may be, and others at the same addresses before them.
    ("grpc.use_local_subchannel_pool", 1),
    # A connection in use looks after its backends each second, which is most of what an idle
    # process would do. To connect again takes 2 ms.
    ("grpc.client_idle_timeout_ms", 10_000),
)
"""Of the channels to the other services."""

REFUSED: Final = (IdentityError, RouteError, XdsError, accord.ContractError, OSError)
"""What keeps any process from starting, and says so in one line."""

COLLECT: Final = 10_000
"""Objects that are new since the last collection of garbage, at which there is another; Python's
own 700 are 2 % of what a service computes."""


def open_identity(settings: Settings, stack: contextlib.AsyncExitStack) -> Identity | None:
    """Who the process is, until the stack ends; None: it goes without TLS.

    Raises:
        IdentityError: its certificate is none that anybody would accept.
    """
    if settings.identity is None:
        return None
    identity = Identity.from_folder(settings.identity, revoked=settings.revoked)
    stack.callback(identity.close)
    return identity


def join(settings: Settings, identity: Identity | None, **own: Any) -> accord.Mesh:
    """The mesh as its settings say; `own` is what `accord.Mesh` takes beside that."""
    return accord.Mesh(
        settings.name,
        targets=settings.peers,
        channel_options=CHANNEL_OPTIONS,
        health_checks=dict.fromkeys(settings.peers, TAKES_CALLS),
        identity=identity,
        routes=settings.routes or None,
        control_plane=settings.control_plane or None,
        authorize=identity is not None,
        **own,
    )


async def follow_policy_file(mesh: accord.Mesh, settings: Settings) -> None:
    """Obey live policy in `<home>/policy.json`, which may come, change and go at any time."""
    source = FileSource(settings.home / "policy.json")
    await mesh.control.overrides.follow(source, Layer.FILE)


def in_use(address: str) -> OSError:
    """The error of an address that cannot be listened on; it names who does, if that is known."""
    port = address.rpartition(":")[2]
    by = port.isdecimal() and holder(int(port))
    why = f", which is held by {by}" if by else "; is it in use?"
    return OSError(f"cannot listen on {address}{why}")


async def serve_metrics(
    recorded: Telemetry, settings: Settings, stack: contextlib.AsyncExitStack
) -> None:
    """Until the stack ends, if any are kept. A port that is taken costs them, not the process."""
    if recorded.scrape is None:
        return
    server = ScrapeServer(recorded.scrape)
    try:
        await server.start("127.0.0.1", settings.metrics_port)
    except (OSError, OverflowError) as error:
        by = holder(settings.metrics_port) or error
        log.warning("no metrics are served on port %d: %s", settings.metrics_port, by)
        return
    stack.push_async_callback(server.close)


class Tasks:
    """Tasks that live as long as the process; one that fails sets `failed`, and so ends it."""

    def __init__(self, failed: asyncio.Event) -> None:
        self._failed = failed
        self._tasks: list[asyncio.Task[None]] = []

    def start(self, name: str, work: Background) -> None:
        """Begin with one."""
        task = asyncio.create_task(work(), name=name)
        task.add_done_callback(self._done)
        self._tasks.append(task)

    def _done(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            log.critical("%s failed", task.get_name(), exc_info=error)
            self._failed.set()

    async def stop(self) -> None:
        """Cancel all, and wait for them."""
        running = {task for task in self._tasks if not task.done()}
        while running:
            for task in running:
                task.cancel()
            # Again and again: a cancellation that meets an error is lost (asyncio.wait_for).
            _, running = await asyncio.wait(running, timeout=1)


async def _main(settings: Settings, recorded: Telemetry, serving: Serving) -> bool:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with serving(settings, recorded) as failed:
        log.info("serving on %s", settings.address)
        # What there is now stays to the end, and calls leave little that only a collection finds.
        gc.freeze()
        gc.set_threshold(COLLECT)
        if settings.identity is None:
            log.warning("WITHOUT TLS: whoever is on this host may call everything")
        waits = [asyncio.create_task(event.wait()) for event in (stop, failed)]
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        for wait in waits:
            wait.cancel()
        log.info("draining")
    return not failed.is_set()


def run(
    name: str,
    version: str,
    addresses: Callable[[int], Addresses],
    serving: Serving,
    *,
    refused: tuple[type[Exception], ...] = (),
    keeps_spans: bool = True,
) -> NoReturn:
    """Run a process as its environment says, until SIGTERM or SIGINT; exits 0 after draining.

    Args:
        name: of the process in the mesh.
        version: of its code, for telemetry.
        addresses: port offset -> where the mesh listens; see `Settings.from_environment`.
        serving: what it does.
        refused: what keeps it from starting beside `REFUSED`.
        keeps_spans: whether it has a database that its spans are written to.
    """
    try:
        settings = Settings.from_environment(name, addresses)
    except ValueError as error:
        sys.exit(f"{name}: {error}")
    logs.configure(name, settings.log_format)
    with contextlib.suppress(ImportError):
        import uvloop

        uvloop.install()
    recorded = telemetry.configure(name, version, os.environ, keeps_spans=keeps_spans)
    expected: tuple[type[Exception], ...] = (*REFUSED, *refused)
    try:
        code = 0 if asyncio.Runner().run(_main(settings, recorded, serving)) else 1
    except expected as error:
        log.critical("%s", error)
        code = 1
    finally:
        recorded.close()
    remove_socket()
    logging.shutdown()
    # All is closed. The ends of the event loop and of the interpreter, beside threads of gRPC that
    # nobody can join, crash once in some thousand times.
    os._exit(code)
