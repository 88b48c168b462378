"""`shopctl certs`."""

import json
import time
from dataclasses import asdict
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, Literal

import typer

from accord_runtime import state_folder
from shopctl import issuer
from shopctl.certs import IDENTITIES, spiffe_id
from shopctl.errors import CommandError
from shopctl.formatting import Columns
from shopctl.options import DEFAULT_HOME, HomeOption, JsonOption, parse_age
from shopctl.terminal import harmless

if TYPE_CHECKING:
    from shopctl.certs.authority import Authority

app = typer.Typer(
    name="certs", no_args_is_help=True, help="Certificates of the shop's own authority."
)

COLUMNS: Final = Columns(NAME=13, STATE=7, LEFT=-6, NOT_AFTER=16, SERIAL=16, ISSUER=0)
LifeOption = Annotated[
    timedelta | None,
    typer.Option(
        "--life",
        parser=parse_age,
        metavar="AGE",
        show_default="as before, or 24h",
        help="How long it is valid: 6s, 5m, 24h, 7d.",
    ),
]


def authority_of(home: Path) -> "Authority":
    """The authority of a shop.

    Raises:
        CommandError: its certificates are another authority's.
    """
    from shopctl.certs.authority import Authority  # cryptography takes long to import

    found = Authority(home / "certs")
    if found.foreign:
        raise CommandError(f"the certificates in {found.folder} are not ours: there is no root/")
    return found


@app.command()
def init(home: HomeOption = DEFAULT_HOME, life: LifeOption = None) -> None:
    """Make what is missing: root, intermediate, a leaf for each service, and the edge's keys.

    `shopctl up` does that, too. The root's key, HOME/certs/root/tls.key, may be kept elsewhere: it
    is needed once in two weeks.
    """
    authority = authority_of(home)
    state_folder.prepare(home)
    made = authority.prepare(IDENTITIES, *([life] if life else []))
    issuer.prepare(home)
    typer.echo(f"made {', '.join(made)}" if made else "everything is there")


@app.command()
def show(home: HomeOption = DEFAULT_HOME, as_json: JsonOption = False) -> None:
    """List certificates: who for, whether valid, for how long, its serial and who signed it."""
    from shopctl.certs.listing import rows

    authority = _existing(home)
    if not as_json:
        typer.echo(COLUMNS.heading)
    for row in rows(authority):
        if as_json:
            typer.echo(json.dumps(asdict(row)))
            continue
        end = f"{datetime.fromtimestamp(row.not_after):%Y-%m-%d %H:%M}" if row.serial else "-"
        issuer = row.issuer.partition(" ")[0]
        line = COLUMNS.line(row.name, row.state, _span(row.left), end, row.serial, issuer)
        typer.echo(harmless(line))
    if not as_json:
        typer.echo(f"NAME is known to others as {spiffe_id('NAME')}")


@app.command()
def rotate(
    kind: Annotated[
        Literal["leaf", "intermediate", "root", "edge-keys"],
        typer.Argument(help="What is replaced."),
    ] = "leaf",
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="NAME", show_default="all", help="Whose leaf."),
    ] = None,
    home: HomeOption = DEFAULT_HOME,
) -> None:
    """Replace certificates now. No call fails: who runs reads the new ones by itself.

    A new root is trusted beside the old one first; then it signs; the old one is trusted until the
    last leaf under it has expired. Takes a few seconds.

    edge-keys: what signs the tokens of shopctl token; tokens of the old key are valid to their end.
    """
    from shopctl.certs.authority import SETTLE

    if names and kind != "leaf":
        raise CommandError(f"{kind} is everybody's: leave the names out")
    if kind == "edge-keys":
        issuer.rotate(home)
        typer.echo("replaced the key that signs tokens")
        return
    authority = _existing(home)
    if kind == "root":
        authority.announce_root()
        typer.echo("the new root is trusted, too; it signs in a moment")
        time.sleep(SETTLE)
        authority.renew_due()  # unless the supervisor has done it
        typer.echo("it signs; the old one is trusted until the last leaf under it has expired")
    elif kind == "intermediate":
        authority.renew_intermediate()
        typer.echo("replaced the intermediate certificate and all leaves")
    else:
        if unknown := [name for name in names or () if name not in authority.names()]:
            raise CommandError(f"{unknown[0]} has no certificate; shopctl certs issue makes one")
        authority.issue(names or authority.names())
        typer.echo(f"replaced {', '.join(names or authority.names())}")


@app.command()
def issue(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Of any service.")],
    home: HomeOption = DEFAULT_HOME,
    life: LifeOption = None,
) -> None:
    """Make a certificate for NAME, also for a service of your own; prints its folder.

    Its id is spiffe://shop.internal/NAME. The shop renews it while it runs.
    """
    authority = _existing(home)
    authority.issue([name], life)
    typer.echo(authority.folder / name)


@app.command()
def revoke(
    what: Annotated[str, typer.Argument(metavar="NAME|SERIAL", help="All of a name, or one.")],
    home: HomeOption = DEFAULT_HOME,
) -> None:
    """Have every service refuse certificates, within a second.

    NAME stays without a certificate until it gets another: shopctl certs rotate leaf NAME.
    """
    for serial in _existing(home).revoke(what):
        typer.echo(f"revoked {serial}")


def _existing(home: Path) -> "Authority":
    authority = authority_of(home)
    if not authority.exists:
        raise CommandError(f"no certificates in {authority.folder}; make them: shopctl certs init")
    return authority


def _span(seconds: float) -> str:
    """`6s`, `59m`, `23h59m`, `3649d`."""
    from shopctl.supervisor.status import duration  # brings rich

    return duration(seconds)
