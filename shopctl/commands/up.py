"""`shopctl up`."""

import asyncio
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from accord_runtime import state_folder
from services.bearer_tokens import KEYS
from services.topology import BROKER
from shopctl import issuer
from shopctl.certs import IDENTITIES
from shopctl.errors import CommandError, ExitCode
from shopctl.options import (
    DEFAULT_HOME,
    DatabaseUrlOption,
    HomeOption,
    JsonOption,
    OffsetOption,
)
from shopctl.supervisor import broker, programs, state
from shopctl.supervisor.foreground import Foreground

if TYPE_CHECKING:
    from shopctl.certs.authority import Authority

app = typer.Typer()


@app.command()
def up(
    home: HomeOption = DEFAULT_HOME,
    offset: OffsetOption = 0,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="Do not follow the logs; they are in files.")
    ] = False,
    without: Annotated[
        list[str] | None,
        typer.Option(
            "--except",
            metavar="NAME",
            help="Leave this one out, to run it yourself. May be repeated.",
        ),
    ] = None,
    database_url: DatabaseUrlOption = "",
    as_json: JsonOption = False,
) -> None:
    """Start the shop: the broker and every service, in this terminal, until Ctrl-C.

    Children that die are started again. Ctrl-C lets everything finish what it is doing; a second
    one ends it at once. Logs are in HOME/logs. Certificates are made and renewed in HOME/certs;
    MESH_INSECURE=1 goes without TLS, on loopback.
    """
    home = home.resolve()
    insecure = os.environ.get("MESH_INSECURE", "") == "1"
    selection = programs.select(
        home,
        offset=offset,
        left_out=[part for name in without or () for part in name.split(",") if part],
        database_url=database_url,
        nats_url=os.environ.get("NATS_URL", ""),
        inherited=os.environ,
        insecure=insecure,
    )
    try:
        state_folder.prepare(home)
        with state.locked(home):
            if taken := programs.taken_ports(selection.programs):
                raise CommandError(
                    f"port in use: {', '.join(taken)}; end what listens there, or move the whole "
                    f"shop: shopctl up --port-offset {offset % 800 + 100}",
                    ExitCode.IN_USE,
                )
            authority = None if insecure else _certificates(home)
            if not os.environ.get(KEYS.variable):
                issuer.prepare(home)
            if any(program.name == BROKER for program in selection.programs):
                broker.write_config(home, offset, authority.usable() if authority else ())
            foreground = Foreground(
                home,
                offset,
                selection,
                quiet=quiet,
                as_json=as_json,
                authority=authority,
            )
            code = asyncio.run(foreground.run())
    except state.LockHeldError as error:
        raise CommandError(
            f"the shop runs already in {home} (process {error.pid}); see: shopctl status, stop "
            "it: shopctl down, or start another: shopctl up --home .mesh2 --port-offset 100",
            ExitCode.IN_USE,
        ) from None
    except PermissionError as error:
        raise CommandError(str(error), ExitCode.FAILED) from None
    if code is not ExitCode.OK:
        raise typer.Exit(code)


def _certificates(home: Path) -> "Authority":
    """The authority of the shop, after everybody has a certificate.

    Raises:
        CommandError: it is somebody else's, who has not made one for everybody.
    """
    from shopctl.certs.authority import Authority  # cryptography takes long to import

    authority = Authority(home / "certs")
    if not authority.foreign:
        authority.prepare(IDENTITIES)
    elif missing := [name for name in IDENTITIES if not (authority.folder / name).is_dir()]:
        raise CommandError(
            f"the certificates in {authority.folder} are not ours (there is no root/), and there "
            f"are none for {', '.join(missing)}"
        )
    return authority
