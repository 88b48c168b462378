"""The edge answers as its OpenAPI document says, whatever is asked of it."""

import os
import re
import subprocess
import sys
from pathlib import Path

from tests.security.clients import CLIENTS
from tests.security.shop import SecureShop
from tests.support.edge import EdgeCaller

EXAMPLES = 5
"""Of each operation, beside what covers each of its parameters."""


def test_answers_conform(tmp_path: Path, shop: SecureShop) -> None:
    """A customer's requests, good and bad ones, are answered as declared, and none by a fault."""
    shop.say("product", "put", "mug", "--price", "4.50", "--stock", "1000")
    outside = EdgeCaller(shop.home, shop.mesh.offset)
    customer = outside.new_customer()
    token = outside.token_of(customer)
    order = outside.with_token(token).order(customer, "mug").json()["order"]["orderId"]
    command = (Path(sys.executable).parent / "st", "--no-color")
    config = ("--config-file", CLIENTS / "schemathesis.toml")
    options = ("--max-examples", str(EXAMPLES), "--generation-database", "none")
    given = {"EDGE": outside.url, "TOKEN": token, "ORDER": order, "NO_PROXY": "127.0.0.1"}
    done = subprocess.run(
        [*command, *config, "run", f"{outside.url}/openapi.json", *options],
        env={**os.environ, **given},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"Tested: +9", done.stdout), done.stdout
    found = re.search(r"(\d+) generated, (\d+) passed", done.stdout)
    assert found is not None, done.stdout
    assert found[1] == found[2]
    assert int(found[1]) > 300
