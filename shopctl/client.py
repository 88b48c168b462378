"""How commands reach the services."""

import asyncio
import functools
import inspect
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, Concatenate, Final, ParamSpec

import grpc
import grpc.aio
import typer
from google.protobuf.message import Message

import accord
from accord_runtime.grpc.operator_contracts import TAKES_CALLS
from services import topology
from shopctl.certs import OPERATOR
from shopctl.errors import CommandError, ExitCode, explain
from shopctl.formatting import Columns, format_json
from shopctl.identity import credentials, identity_of
from shopctl.options import DEFAULT_HOME, HomeOption, JsonOption, ShopOffsetOption
from shopctl.supervisor import state
from shopctl.supervisor.health import listens
from shopctl.terminal import harmless

P = ParamSpec("P")
Stub = Callable[[grpc.aio.Channel], Any]

RESTART_SECONDS: Final = 2.0
"""How long a service may refuse connections: it may be about to restart."""

BUSY_SECONDS: Final = 10.0
"""How long a service that is there may take to say that it serves."""

MAX_PAGE: Final = 500
"""Rows that a list is asked for at a time."""


class Shop:
    """The services, as seen by one command, and where it prints what they say.

    Where they are is found out by the first call.

    Args:
        home: the shop's state folder.
        offset: its port offset; None: the one of what runs in `home`.
        as_json: print JSON instead of text.
    """

    def __init__(self, home: Path, offset: int | None, as_json: bool) -> None:
        self.as_json = as_json
        self.home = home
        self._offset = offset
        self._mesh: accord.Mesh | None = None
        self._bare: list[grpc.aio.Channel] = []
        self.identity = OPERATOR
        """Who calls: `certs/<identity>` in the folder."""
        self.insecure = False
        """Whether to call without TLS, whatever the shop does."""

    @asynccontextmanager
    async def calling(self, service: str, key: str = "") -> AsyncIterator[grpc.aio.Channel]:
        """Connects, and turns a call that fails into a `CommandError`.

        Waiting for the connection first tells a service that is not there, which has done
        nothing, from a call whose answer was lost. `key` as in `errors.explain`.
        """
        address = self._targets[service]
        if self._mesh is None:
            self._mesh = accord.Mesh(
                "shopctl",
                targets=self._targets,
                health_checks=dict.fromkeys(self._targets, TAKES_CALLS),
                # Its own: one that failed before, in this process, would make it wait.
                channel_options=[("grpc.use_local_subchannel_pool", 1)],
            )
        # It is the service, and no other of the same authority, whom the certificate names.
        named = [("grpc.ssl_target_name_override", service)] if self._credentials else []
        channel = self._mesh.channel(service, credentials=self._credentials, options=named)
        if not await serves(channel):
            raise CommandError(
                f"{service} does not serve at {address}{await self._refused(address)};"
                " is the shop up? See: shopctl status",
                ExitCode.NOT_RUNNING,
            )
        try:
            yield channel
        except grpc.RpcError as error:
            raise explain(error, service, address, key) from None

    def bare_channel(self, service: str) -> grpc.aio.Channel:
        """A channel on which nothing is repeated, kept or held back: to measure by."""
        address = self._targets[service]
        if self._credentials is None:
            found = grpc.aio.insecure_channel(address)
        else:
            named = [("grpc.ssl_target_name_override", service)]
            found = grpc.aio.secure_channel(address, self._credentials, named)
        self._bare.append(found)
        return found

    def address(self, service: str) -> str:
        """Where a service listens, or the edge."""
        if service == topology.EDGE:
            return topology.address(service, running_offset(self.home, self._offset) or 0)
        return self._targets[service]

    async def rows(
        self, service: str, stub: Stub, rpc: str, request: Any, limit: int = sys.maxsize
    ) -> AsyncIterator[Any]:
        """Up to `limit` rows of a list that a service gives page by page.

        A page asks and answers as all lists do: `page_size`, `page_token` and `next_page_token`,
        and its rows in the first field.
        """
        while limit > 0:
            request.page_size = min(limit, MAX_PAGE)
            async with self.calling(service) as channel:
                page = await getattr(stub(channel), rpc)(request)
            found = getattr(page, page.DESCRIPTOR.fields_by_number[1].name)
            for row in found:
                yield row
            limit -= len(found)
            request.page_token = page.next_page_token
            if not request.page_token:
                break

    async def change(self, service: str, stub: Stub, rpc: str, request: Message, key: str) -> Any:
        """The response of a call that changes something, under an idempotency key."""
        async with self.calling(service, key) as channel:
            return await getattr(stub(channel), rpc)(request, metadata=accord.idempotency_key(key))

    def print(self, message: Message, *lines: str, **more: str) -> None:
        """Prints a message: `lines` for people, for scripts its JSON with `more` before it."""
        typer.echo(
            format_json(message, **more) if self.as_json else "\n".join(map(harmless, lines))
        )

    @contextmanager
    def listing(self, what: str, columns: Columns) -> Iterator[Callable[..., None]]:
        """What prints the rows of a list as `print` does, the first below the columns' heading.

        In the end people are told if there was none; `what` are the rows, or "" says nothing.
        """
        rows = 0

        def row(message: Message, *lines: str, **more: str) -> None:
            nonlocal rows
            if not (rows or self.as_json):
                typer.echo(columns.heading)
            rows += 1
            self.print(message, *lines, **more)

        yield row
        if what and not (rows or self.as_json):
            typer.echo(f"no {what} found", err=True)

    async def close(self) -> None:
        """Closes all connections."""
        await asyncio.gather(*(channel.close(None) for channel in self._bare))
        if self._mesh is not None:
            await self._mesh.close()

    @functools.cached_property
    def _credentials(self) -> grpc.ChannelCredentials | None:
        identity = None if self.insecure else identity_of(self.home, self.identity)
        return credentials(identity) if identity else None

    async def _refused(self, address: str) -> str:
        """What else may be wrong where somebody listens."""
        if self._credentials and await listens(address):
            return (
                f" for whom it does not trust: the certificate of {self.identity} may be revoked"
                " or of another shop (see: shopctl certs show), or it may go without TLS"
                " (MESH_INSECURE=1)"
            )
        return ""

    @functools.cached_property
    def _targets(self) -> dict[str, str]:
        elsewhere = os.environ.get("MESH_TARGETS", "")
        offset = running_offset(self.home, self._offset)
        if offset is None and not elsewhere:
            # Whoever listens on the usual ports may be another shop.
            raise CommandError(
                f"nothing runs in {self.home}; start the shop with: make up,"
                " or name another: --home or --port-offset",
                ExitCode.NOT_RUNNING,
            )
        try:
            return topology.targets(offset or 0, elsewhere)
        except ValueError as error:
            raise CommandError(str(error), ExitCode.USAGE) from None


def running_offset(home: Path, asked: int | None) -> int | None:
    """The port offset to use: as asked, or of the shop that runs in `home`; None: of no shop."""
    if asked is not None:
        return asked
    run = state.read_run(home)
    return run.offset if run else None


async def serves(channel: grpc.aio.Channel) -> bool:
    """Whether the channel leads to a service that serves; may take `BUSY_SECONDS`."""
    for seconds in (RESTART_SECONDS, BUSY_SECONDS - RESTART_SECONDS):
        try:
            async with asyncio.timeout(seconds):
                await channel.channel_ready()
        except TimeoutError:
            if channel.get_state() is grpc.ChannelConnectivity.TRANSIENT_FAILURE:
                return False
        else:
            return True
    return False


async def each(services: Sequence[str], listed: Callable[[str], Awaitable[None]]) -> None:
    """List what each of these services has; one that does not answer keeps nothing of the others.

    Raises the last CommandError when all have been asked, after those before it were printed.
    """
    failed = None
    for name in services:
        try:
            await listed(name)
        except CommandError as error:
            if failed is not None:
                typer.echo(failed, err=True)
            failed = error
    if failed is not None:
        raise failed


def with_shop(
    call: Callable[Concatenate[Shop, P], Coroutine[Any, Any, None]],
) -> Callable[..., None]:
    """Makes a command of what is to be done with a shop.

    The command takes the options `--home`, `--port-offset` and `--json` besides those of `call`;
    in the help they come last, but for `--id`.
    """

    @functools.wraps(call)
    def command(
        home: Path, offset: int | None, as_json: bool, *args: P.args, **kwargs: P.kwargs
    ) -> None:
        async def connected() -> None:
            shop = Shop(home, offset, as_json)
            try:
                await call(shop, *args, **kwargs)
            finally:
                await shop.close()

        asyncio.run(connected())

    signature = inspect.signature(call)
    parameters = list(signature.parameters.values())[1:]
    names = [parameter.name for parameter in parameters]
    place = names.index("id_only") if "id_only" in names else len(names)
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    parameters[place:place] = [
        inspect.Parameter("home", kind, default=DEFAULT_HOME, annotation=HomeOption),
        inspect.Parameter("offset", kind, default=None, annotation=ShopOffsetOption),
        inspect.Parameter("as_json", kind, default=False, annotation=JsonOption),
    ]
    # This is what typer reads; the type of a function does not have it.
    vars(command)["__signature__"] = signature.replace(parameters=parameters)
    return command
