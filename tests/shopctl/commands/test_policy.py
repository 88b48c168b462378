"""`shopctl policy`, `shopctl fault` and `shopctl mesh`, against services and a broker."""

import asyncio
import json
import re
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest

from accord.errors import ServiceError
from accord.ops.v1.mesh_pb2 import Method
from shop.customers.v1.customers_pb2 import ListCustomersRequest
from shop.customers.v1.customers_pb2_grpc import CustomerServiceStub
from shopctl import client
from shopctl.commands.mesh import print_method
from shopctl.errors import ExitCode
from tests.shopctl.commands.test_work import objects, output, refused, run
from tests.support.nats import nats_server
from tests.support.shop import Shop, running_shop
from tests.support.wait import until

GET = "shop.customers.v1.CustomerService/GetCustomer"
LIST = "shop.customers.v1.CustomerService/ListCustomers"
OVERRIDE = '{"policy": {"timeout": "1.500s"}, "dark": ["DARK_POLICY_CACHE"]}'
WHOSE = ("--service", "customers")
WHY = ("--reason", "slow database")


@pytest.fixture
async def shop(tmp_path: Path) -> AsyncIterator[Shop]:
    """Two services and a broker."""
    async with (
        nats_server() as broker,
        running_shop(tmp_path, "customers", "orders", nats_url=broker.url) as shop,
    ):
        yield shop


async def test_policy_is_set_everywhere_and_taken_back(shop: Shop) -> None:
    """What is set through one process is in force in another, is shown, audited and cleared."""
    orders = shop.runtimes["orders"].mesh.control.overrides
    (found,) = await objects(shop, "policy", "set", GET, OVERRIDE, *WHY)
    assert (found["service"], found["source"], found["timeout"]) == (
        "customers",
        "SOURCE_LIVE",
        "1.500s",
    )
    await until(lambda: orders.policy(f"/{GET}").timeout == 1.5, "orders to follow")

    shown = [await objects(shop, "policy", "get", GET, "--service", n) for n in shop.runtimes]
    for (each,), name in zip(shown, shop.runtimes, strict=True):
        assert (each["service"], each["method"]) == (name, GET)
        assert each["override"] == {
            "policy": found["override"]["policy"],
            "dark": ["DARK_POLICY_CACHE"],
        }
    text = await output(shop, "policy", "get", "--service", "orders")
    heading, row = text.splitlines()
    assert heading.split() == ["SERVICE", "METHOD", "POLICY"]
    assert row.split(maxsplit=2) == ["orders", GET, f"LIVE {_compact(OVERRIDE)}"]
    (record,) = await objects(shop, "audit", "--service", "customers")
    assert (record["target"], record["reason"]) == (GET, "slow database")

    text = await output(shop, "policy", "clear", GET, *WHY)
    assert text.splitlines()[1].split(maxsplit=2) == ["customers", GET, "as its contract says"]
    await until(lambda: orders.policy(f"/{GET}").timeout == 2.0, "orders to follow")
    none = await run(shop, "policy", "get", "--service", "orders")
    assert (none.out, none.error) == ("", "no overrides found\n")


async def test_refused_policies(shop: Shop) -> None:
    """What contradicts itself is refused with a reason; a refused document is shown, not hidden."""
    await refused(shop, "OVERRIDE_REFUSED", "policy", "set", GET, _timeout("0s"), *WHY)
    await refused(shop, "NOT_FOUND", "policy", "set", f"{GET}s", _timeout("1s"), *WHY)
    (shop.home / "policy.json").write_text(json.dumps({GET: {"policy": {"timeout": "0s"}}}))
    overrides = shop.runtimes["customers"].mesh.control.overrides
    await until(overrides.refused, "the file to be refused")
    (found,) = await objects(shop, "policy", "get", "--service", "customers")
    assert (found["method"], found["source"]) == (GET, "SOURCE_FILE")
    assert "longer than zero" in found["problem"]
    text = await output(shop, "policy", "get", GET, "--service", "customers")
    assert re.search(rf"^customers +{GET} +FILE is refused: .*longer than zero", text, re.MULTILINE)


async def test_no_broker(tmp_path: Path) -> None:
    """Live policy that cannot be kept is not changed either, and the command says which it is."""
    async with running_shop(tmp_path, "customers") as shop:
        ran = await run(shop, "policy", "set", GET, OVERRIDE, *WHY)
        assert (ran.code, ran.out) == (ExitCode.FAILED, "")
        assert "POLICY_STORE_UNAVAILABLE" in ran.error
        assert not (await run(shop, "policy", "get", "--service", "customers")).out


async def test_a_fault_comes_and_goes(shop: Shop) -> None:
    """An injected fault fails calls as it says, is shown with the state, and can be ended."""
    abort = ("--abort", "data_loss", "--delay", "1ms", "--for", "5m")
    (found,) = await objects(shop, "fault", "inject", LIST, *abort, *WHY)
    assert found["fault"] == {
        "delay": "0.001s",
        "delay_percent": 100,
        "abort_code": "STATUS_CODE_DATA_LOSS",
        "abort_percent": 100,
        "guarded": False,
    }
    assert await _list(shop) is grpc.StatusCode.DATA_LOSS
    text = await output(shop, "mesh", "--service", "customers", "--method", LIST)
    assert '"abort_code": "STATUS_CODE_DATA_LOSS"' in text
    assert re.search(r" for (2[0-9]{2}|300) s", text)

    heading, row = (await output(shop, "fault", "list", *WHOSE)).splitlines()
    assert heading.split() == ["SERVICE", "METHOD", "FAULT", "LEFT", "WHO", "REASON"]
    said = r"delay 0\.001 s, 100 %; DATA_LOSS, 100 % +\d+ s  anonymous   slow database"
    assert re.fullmatch(rf"customers +{LIST} +{said}", row)
    (listed,) = await objects(shop, "fault", "list", *WHOSE)
    assert (listed["method"], listed["fault_principal"]) == (LIST, "anonymous")

    text = await output(shop, "fault", "clear", LIST, *WHY)
    assert "fault" not in text
    assert (await run(shop, "fault", "list", *WHOSE)).error == "no faults found\n"
    assert await _list(shop) is grpc.StatusCode.OK
    done = [record["method"] for record in await objects(shop, "audit", "--service", "customers")]
    service = "accord.ops.v1.MeshService"
    assert done == [f"{service}/ClearFault", f"{service}/InjectFault"]


async def test_state_of_the_mesh(shop: Shop) -> None:
    """Limits, breakers and budgets of each process, for people and for scripts."""
    await asyncio.gather(*(shop.customer() for _ in range(3)))
    stub = CustomerServiceStub(shop.runtimes["orders"].mesh.channel("customers"))
    assert [each async for each in stub.ListCustomers(ListCustomersRequest())]

    (found,) = await objects(shop, "mesh", "--service", "orders")
    assert found["service"] == "orders"
    assert found["limit"]["stream_limit"] > 0
    (breaker,) = found["breakers"]
    assert (breaker["target"], breaker["method"]) == ("customers", LIST)
    assert breaker["position"] == "BREAKER_POSITION_CLOSED"
    text = await output(shop, "mesh", "--service", "orders")
    # The window of a breaker may have passed on a slow machine.
    assert re.search(rf"  breaker  customers  {LIST}  CLOSED, 0 of [01] failed\n", text)
    assert "  budget   customers  " in text
    assert "streams open" in text


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("policy", "set", GET, "{", *WHY), "does not parse"),
        (("policy", "set", GET, '{"polity": {}}', *WHY), "does not parse"),
        (("policy", "set", GET, OVERRIDE), "--reason"),
        (("policy", "set", "GetCustomer", OVERRIDE, *WHY), "--through"),
        (("policy", "clear", "grpc.health.v1.Health/Check", *WHY), "--through"),
        (("policy", "get", "--service", "printers"), "printers"),
        (("fault", "inject", GET, *WHY), "--delay"),
        (("fault", "inject", GET, "--abort", "OK", *WHY), "OK"),
        (("fault", "inject", GET, "--abort", "NEVER", *WHY), "NEVER"),
        (("fault", "inject", GET, "--delay", "soon", *WHY), "soon"),
        (
            ("fault", "inject", GET, "--delay", "1s", "--delay-percent", "101", *WHY),
            "--delay-percent",
        ),
    ],
    ids=lambda value: "-".join(value[:2]) if isinstance(value, tuple) else "",
)
async def test_usage(tmp_path: Path, arguments: tuple[str, ...], text: str) -> None:
    """What cannot be understood ends with 2, before anybody is called."""
    nowhere = Shop(tmp_path, 900, "", "")
    ran = await run(nowhere, *arguments)
    assert ran.code == ExitCode.USAGE
    assert text in ran.error
    assert not ran.out


async def _list(shop: Shop) -> grpc.StatusCode:
    """How a call of the customers' list ends."""
    stub = CustomerServiceStub(shop.channel("customers"))
    try:
        async for _ in stub.ListCustomers(ListCustomersRequest()):
            pass
    except grpc.RpcError as error:
        return ServiceError.from_rpc(error).code
    return grpc.StatusCode.OK


def _timeout(text: str) -> str:
    return json.dumps({"policy": {"timeout": text}})


def _compact(text: str) -> str:
    return json.dumps(json.loads(text))


def test_a_source_of_a_newer_version_is_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A number that this version does not know is printed, not refused."""
    method = Method.FromString(b"\x0a\x01m\x12\x00\x18\x63")  # field 3, value 99
    print_method(client.Shop(tmp_path, None, as_json=False), "orders", method)
    assert capsys.readouterr().out.splitlines()[1].split() == ["orders", "m", "99", "{}"]
