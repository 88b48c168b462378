"""The routes on the page about xDS do what it says, on real servers."""

import json
from pathlib import Path
from typing import Any

import accord
from tests.accord.kit import Message, Stub
from tests.accord.xds.kit import People, backend, called, joined, until_only, until_seen
from tests.accord.xds.test_fleet import write
from tests.docs.pages import ROOT, blocks

PAGE = (ROOT / "docs" / "xds.md").read_text()


async def test_routes_of_the_page(tmp_path: Path) -> None:
    """Each file of the page is obeyed: weights, identities and headers, and draining."""
    canary, rules, draining = (json.loads(each)["orders"] for each in blocks(PAGE, "json"))
    people, file = People(tmp_path), tmp_path / "routes.json"
    orders = people.identity("orders")
    async with backend(orders, "v1") as one, backend(orders, "v2") as two:
        addresses = {"v1": one.address, "v2": two.address}

        def follow(route: dict[str, Any]) -> None:
            versions = {name: addresses[name] for name in route["versions"]}
            write(file, orders={**route, "versions": versions})

        follow(canary)
        mesh = accord.Mesh("caller", identity=people.identity("caller"), routes=file)
        stub = Stub(await joined(mesh, "orders"))
        assert (await called(stub, 50))["v1"] > 25
        await until_seen(stub, "v2")
        follow(rules)
        await until_only(stub, "v2")
        follow({**rules, "rules": rules["rules"][1:]})
        await until_seen(stub, "v1")
        marked = (("x-canary", "yes"),)
        assert await called(stub, 20, metadata=marked) == {"v2": 20}
        assert await called(stub, 20) == {"v1": 20}
        both = f"ipv4:{one.address},{two.address}"
        write(file, orders={**draining, "versions": {"v1": both}, "draining": [two.address]})
        assert (await stub.Unary(Message())).text == "v1"
        assert draining["draining"][0] in draining["versions"]["v1"]
        await mesh.close()
