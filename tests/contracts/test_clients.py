"""The generated clients, as somebody has them who installed the wheels and nothing else."""

import asyncio
from pathlib import Path

from services import topology
from tests.contracts.consumer import Consumer, block
from tests.support.shop import running_shop
from tools import wheels

README = wheels.ROOT / "generated" / "README.md"

AT_HOME = """
import importlib.util, pathlib, sys
import accord, shop
for package in (accord, shop):
    assert pathlib.Path(package.__file__).is_relative_to(sys.prefix), package
for name in ("services", "shopctl", "tests", "tools"):
    assert importlib.util.find_spec(name) is None, name
"""

WRONG = """
from shop.customers.v1.customers_pb2 import GetCustomerRequest
from shop.customers.v1.customers_pb2_grpc import CustomerServiceStub


async def name(customers: CustomerServiceStub) -> int:
    answer = await customers.GetCustomer(GetCustomerRequest(customer_id=7))
    return answer.customer.name
"""


async def test_the_example_runs_against_the_shop(client_user: Consumer, tmp_path: Path) -> None:
    """The README's client creates and reads a customer of a real service and sees its refusal.

    It runs outside the repository, in an environment from which nothing of it can be imported.
    """
    (client_user.folder / "client.py").write_text(block(README, "python"))
    client_user.run("-I", "-c", AT_HOME)
    async with running_shop(tmp_path, "customers") as shop:
        address = topology.address("customers", shop.offset)
        printed = await asyncio.to_thread(client_user.run, "-I", "client.py", address)
    assert printed == "Ada Lovelace\nEMAIL_TAKEN\n"


def test_the_example_is_typed(client_user: Consumer) -> None:
    """`mypy --strict` accepts the README's client with the installed wheels alone."""
    (client_user.folder / "client.py").write_text(block(README, "python"))
    checked = client_user.mypy("client.py")
    assert checked.returncode == 0, checked.stdout


def test_types_catch_mistakes(client_user: Consumer) -> None:
    """A request's field and an answer's field of the wrong type are found before anything runs."""
    (client_user.folder / "wrong.py").write_text(WRONG)
    found = client_user.mypy("wrong.py").stdout
    assert 'Argument "customer_id"' in found
    assert "Incompatible return value type" in found
