"""No setting is accepted and not used: it acts, or it is refused."""

import json
from typing import Any

import pytest

import accord
from tests.accord.contract.test_options_reader import declare
from tests.accord.kit import SERVICE

NOWHERE = "127.0.0.1:1"


@pytest.mark.parametrize(
    ("policy", "field", "streams"),
    [
        ("retry { max_attempts: 2 }", "retry", {"client_stream": True}),
        ("hedge {}", "hedge", {"client_stream": True}),
        ("hedge {}", "hedge", {"server_stream": True}),
        ("cache { ttl { seconds: 1 } }", "cache", {"server_stream": True}),
        ("stream { idle { seconds: 1 } }", "stream", {}),
    ],
)
def test_fields_that_say_nothing_of_an_rpc(policy: str, field: str, streams: Any) -> None:
    """The RPC itself must not state them; in the defaults of its service they are for others."""
    with pytest.raises(accord.ContractError, match="has no effect") as caught:
        accord.method_policy(declare(policy, level="NO_SIDE_EFFECTS", **streams))
    assert caught.value.field == field
    accord.method_policy(declare(defaults=policy, level="NO_SIDE_EFFECTS", **streams))


@pytest.fixture(params=["aio", "sync"])
def channel_of(request: pytest.FixtureRequest) -> Any:
    """`channel` of a mesh, by both drivers."""
    return lambda mesh: mesh.channel if request.param == "aio" else mesh.sync.channel


async def test_contracts_of_a_channel(channel_of: Any) -> None:
    """Those of the second look at a target are not forgotten for those of the first."""
    mesh = accord.Mesh("caller")
    channel = channel_of(mesh)
    assert channel(NOWHERE) is channel(NOWHERE)
    assert channel(NOWHERE, SERVICE) is channel(NOWHERE, SERVICE)
    assert channel(NOWHERE) is not channel(NOWHERE, SERVICE)
    await mesh.close()


def test_service_config() -> None:
    """An empty one replaces what is derived, too; beside one `health_checks` would say nothing."""
    options = accord.Mesh("caller", service_config={})._channel_options(NOWHERE, (SERVICE,), ())
    assert json.loads(str(dict(options)["grpc.service_config"])) == {}
    with pytest.raises(ValueError, match="health_checks"):
        accord.Mesh("caller", service_config={}, health_checks=["orders"])


def test_health_checks_of_an_address() -> None:
    """The targets themselves are a mapping, too, but not to services: all calls would fail."""
    targets = {"orders": NOWHERE}
    with pytest.raises(ValueError, match="is an address"):
        accord.Mesh("caller", targets=targets, health_checks=targets)


def test_health_checks_of_no_target() -> None:
    """A target that is misspelt would not be watched."""
    with pytest.raises(ValueError, match="did you mean 'orders'"):
        accord.Mesh("caller", targets={"orders": NOWHERE}, health_checks=["order"])
