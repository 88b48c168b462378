"""What is not Python buys at the shop's edge: Node with connect-web, and with nothing but fetch."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.security import clients
from tests.security.clients import CLIENTS
from tests.security.shop import SecureShop
from tests.support import node


@pytest.mark.parametrize(
    ("client", "check_refusals"),
    [
        pytest.param("grpc_web.mjs", clients.check_typed_errors, id="connect-web"),
        pytest.param("rest.mjs", clients.check_problems, id="fetch"),
    ],
)
async def test_it_buys(
    tmp_path: Path,
    shop: SecureShop,
    client: str,
    check_refusals: Callable[[dict[str, Any]], None],
) -> None:
    """It orders, watches the order to its end, and is told why by what is refused."""
    shop.say("product", "put", "mug", "--price", "4.50", "--stock", "1000")
    await asyncio.to_thread(node.lay_out, tmp_path, CLIENTS / "node.mjs", CLIENTS / client)
    given = {"client": f"./{client}", "given": clients.purchase(shop, "mug")}
    found = await node.asked(tmp_path, "node.mjs", given)
    clients.check(found)
    check_refusals(found)


async def test_a_generated_client(tmp_path: Path, shop: SecureShop) -> None:
    """What openapi-typescript makes of the edge's document buys, and mistakes do not type-check."""
    shop.say("product", "put", "mug", "--price", "4.50", "--stock", "1000")
    files = (CLIENTS / "node.mjs", CLIENTS / "typed.mts")
    await asyncio.to_thread(node.lay_out, tmp_path, *files)
    given = clients.purchase(shop, "mug")
    openapi = ("node_modules/openapi-typescript/bin/cli.js", f"{given['edge']}/openapi.json")
    await node.run(tmp_path, *openapi, "--output", "schema.d.ts")
    options = ("--noEmit", "--allowImportingTsExtensions", "--module", "nodenext")
    target = ("--target", "es2022", "--lib", "es2022,dom")
    await node.run(
        tmp_path, "node_modules/typescript/bin/tsc", "--strict", *options, *target, "typed.mts"
    )
    found = await node.asked(tmp_path, "node.mjs", {"client": "./typed.mts", "given": given})
    assert found == {"total": "450", "reason": "INVALID_ARGUMENT"}
