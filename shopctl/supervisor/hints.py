"""Commands to try once the shop is up. They work when pasted into bash or zsh."""

import os
import shlex
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from services import topology
from shopctl.options import DEFAULT_HOME

_ADDRESS = '"line1": "Unter den Linden 1", "city": "Berlin", "country_code": "DE"'


def text(home: Path, offset: int, left_out: Sequence[str] = ()) -> str:
    """What to do next.

    Args:
        home: absolute path of the shop's state folder.
        offset: port offset with which it was started.
        left_out: services that the user wants to run.
    """
    shopctl, grpcurl = tool("shopctl"), tool("grpcurl")
    lines = ["In another terminal:", ""]
    if home != DEFAULT_HOME.resolve():
        lines += [f"  export MESH_HOME={shlex.quote(str(home))}", ""]
    lines += [
        f"  {shopctl} status",
        f'  CUSTOMER=$({shopctl} customer create --id --name "Ada" --email ada$RANDOM@example.com '
        '--street "Unter den Linden 1" --city Berlin --country DE)',
        f"  {shopctl} product put tea --price 4.50 --stock 100",
        f'  {shopctl} order place --customer "$CUSTOMER" --item tea:2 --watch',
        "",
        "The same over gRPC:",
        "",
        *_session(grpcurl, offset),
        "",
        *_by_hand(home, offset, left_out),
        f"Logs are in {_short(home / 'logs')}. Ctrl-C stops the shop.",
    ]
    return "\n".join(lines)


def tool(name: str) -> str:
    """How to call a program here: by its name, or as it lies beside the running Python."""
    if shutil.which(name):
        return name
    beside = Path(sys.executable).with_name(name)
    return shlex.quote(_short(beside)) if beside.exists() else name


def _by_hand(home: Path, offset: int, left_out: Sequence[str]) -> list[str]:
    python = shlex.quote(_short(Path(sys.executable)))
    environment = f"MESH_HOME={shlex.quote(str(home))} MESH_PORT_OFFSET={offset} LOG_FORMAT=text"
    services = [name for name in left_out if name in topology.SERVICES]
    if not services:
        return []
    return [
        "Run what was left out yourself:",
        "",
        *(f"  {environment} {python} -m services.{name}" for name in services),
        "",
    ]


def _session(grpcurl: str, offset: int) -> list[str]:
    def call(service: str, method: str, request: str, keyed: bool = False) -> str:
        key = '-H "idempotency-key: key-$RANDOM-$RANDOM" ' if keyed else ""
        address = topology.address(service, offset)
        return f"{grpcurl} -plaintext {key}-d {request} {address} {method}"

    def id_from(command: str, field: str) -> str:
        return f'$({command} | sed -n \'s/.*"{field}": "\\(.*\\)".*/\\1/p\' | head -1)'

    create_customer = call(
        "customers",
        "shop.customers.v1.CustomerService/CreateCustomer",
        _quoted('{"name": "Grace", "email": "grace$RANDOM@example.com"}'),
        keyed=True,
    )
    create_order = call(
        "orders",
        "shop.orders.v1.OrderService/CreateOrder",
        _quoted(
            '{"customer_id": "$CUSTOMER", "card_token": "tok_visa", "items": [{"sku": "pot", '
            '"quantity": 1, "unit_price": {"minor_units": 2900, "currency_code": "EUR"}}], '
            '"ship_to": {"name": "Grace", ' + _ADDRESS + "}}"
        ),
        keyed=True,
    )
    return [
        f"  {grpcurl} -plaintext {topology.address('orders', offset)} "
        "describe shop.orders.v1.OrderService",
        f"  CUSTOMER={id_from(create_customer, 'customerId')}",
        "  "
        + call(
            "inventory",
            "shop.inventory.v1.InventoryService/UpsertProduct",
            '\'{"sku": "pot", "name": "Teapot", "on_hand": 100, '
            '"price": {"minor_units": 2900, "currency_code": "EUR"}}\'',
        ),
        f"  ORDER={id_from(create_order, 'orderId')}",
        "  "
        + call(
            "orders",
            "shop.orders.v1.OrderService/StreamOrderUpdates",
            _quoted('{"order_id": "$ORDER"}'),
        ),
    ]


def _quoted(text: str) -> str:
    """`text` in double quotes, so that the shell fills in variables."""
    return '"' + text.replace('"', '\\"') + '"'


def _short(path: Path) -> str:
    """The path, relative to the working folder if it lies below it."""
    relative = os.path.relpath(path)
    return str(path) if relative.startswith("..") else relative
