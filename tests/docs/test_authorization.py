"""`docs/authorization.md`: its table is that of the contracts, and what it shows is true."""

import re
from typing import Final

import grpc
import pytest
from google.protobuf import descriptor_pool

from accord import NotFound, check_service, method_policy
from accord.identity import users
from accord_runtime.grpc import owner
from shopctl.authorization import CALLERS, explain
from shopctl.certs import spiffe_id
from tests.docs.pages import ROOT, blocks
from tests.security.descriptors import RPCS
from tools import authorization

PAGE: Final = authorization.PAGE.read_text()


def test_the_table_is_that_of_the_contracts() -> None:
    """Who changes the callers of an RPC writes the table anew: python tools/authorization.py."""
    assert authorization.page() == PAGE
    assert PAGE.count("\n| `") > 20


def test_the_reasons_are_those_of_the_code() -> None:
    """Every reason for which a token is refused is on the page, and no other."""
    code = (ROOT / "interceptors/accord/identity/users.py").read_text()
    assert set(re.findall(r"TOKEN_[A-Z_]+", PAGE)) == set(re.findall(r"TOKEN_[A-Z_]+", code))
    assert f"at most {users.MAX_LIFE:g} s" in PAGE
    assert owner.check.__doc__ is not None
    assert NotFound().code is grpc.StatusCode.NOT_FOUND


def test_what_explain_says_is_so() -> None:
    """The answer that the page shows is the command's own."""
    shown = next(text for text in blocks(PAGE, "console") if "authz explain" in text)
    found = explain("edge", "InventoryService/ReserveStock")
    assert not found.allowed
    for text in (found.caller, found.method, found.reason, found.why, found.contract):
        assert text in shown


def test_every_declared_call_is_allowed() -> None:
    """What a contract says that its RPC calls, or compensates with, lets its service in."""
    calls = 0
    for rpc in RPCS:
        package = rpc.method.containing_service.file.package
        if not package.startswith("shop."):
            continue
        policy = method_policy(rpc.path)
        called = [*policy.calls]
        if policy.saga is not None:
            called += policy.saga.steps
        for each in called:
            name = each.removeprefix("/")
            assert explain(package.split(".")[1], name).allowed, f"{rpc.path} -> {name}"
            calls += 1
    assert calls > 10


@pytest.mark.parametrize("service", sorted({each.path.split("/")[1] for each in RPCS}))
def test_nobody_is_named_who_does_not_exist(service: str) -> None:
    """A contract names identities of the shop, each of which has a certificate somewhere."""
    if service.startswith("grpc."):
        assert descriptor_pool.Default().FindServiceByName(service)
        return
    for policy in check_service(service):
        assert policy.allow <= set(map(spiffe_id, CALLERS))
