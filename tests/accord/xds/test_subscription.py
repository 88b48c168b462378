"""What a stream of xDS answers: pure, without a server."""

import pytest
from google.protobuf.any_pb2 import Any

from accord.xds.resources import CLUSTER, ENDPOINTS, LISTENER, ROUTES, Target, named
from accord.xds.routes import Route, Rule
from accord.xds.subscription import MAX_NAMES, Subscription, TooMany
from accord.xds.v3 import discovery_pb2 as pb

A, B = ("127.0.0.1", 1), ("127.0.0.1", 2)


class Plane:
    """Targets that a test changes."""

    def __init__(self) -> None:
        self.targets = {"orders": Target(Route({"v1": "-"}), {"v1": (A,)}, "spiffe://d/orders")}

    def find(self, kind: str, name: str) -> Any | None:
        return named(kind, name, self.targets, "spiffe://d/caller")


def ask(stream: Subscription, kind: str, *names: str, **more: object) -> list[pb.DiscoveryResponse]:
    return stream.asked(pb.DiscoveryRequest(type_url=kind, resource_names=names, **more))  # type: ignore[arg-type]


def acknowledge(
    stream: Subscription, said: pb.DiscoveryResponse, *names: str
) -> list[pb.DiscoveryResponse]:
    has = {"response_nonce": said.nonce, "version_info": said.version_info}
    return ask(stream, said.type_url, *names, **has)


def test_an_acknowledgement_is_not_answered() -> None:
    """A request is answered once; who has the newest is only answered when something changes."""
    plane = Plane()
    stream = Subscription(plane.find)
    (said,) = ask(stream, LISTENER, "orders")
    assert acknowledge(stream, said, "orders") == []
    assert stream.pushed() == []
    (endpoints,) = ask(stream, ENDPOINTS, "orders/rest")
    acknowledge(stream, endpoints, "orders/rest")
    plane.targets["orders"] = Target(Route({"v1": "-"}), {"v1": (A, B)}, "spiffe://d/orders")
    (pushed,) = stream.pushed()
    assert (pushed.type_url, pushed.version_info != endpoints.version_info) == (ENDPOINTS, True)


def test_a_refusal_is_kept_and_not_repeated() -> None:
    """What a client has refused is not sent again until it changes; then it may accept it."""
    plane = Plane()
    stream = Subscription(plane.find)
    (said,) = ask(stream, CLUSTER, "orders/rest")
    refused = {"response_nonce": said.nonce, "error_detail": pb.Error(code=3, message="no")}
    assert ask(stream, CLUSTER, "orders/rest", **refused) == []
    assert stream.refusals() == {CLUSTER: "no"}
    assert stream.pushed() == []
    plane.targets["orders"] = Target(Route({"v1": "-"}), {"v1": (A,)}, "spiffe://d/other")
    (again,) = stream.pushed()
    acknowledge(stream, again, "orders/rest")
    assert stream.refusals() == {}


def test_a_request_for_an_older_answer_is_passed_by() -> None:
    """A nonce that is not the newest says nothing: another request is on its way."""
    plane = Plane()
    stream = Subscription(plane.find)
    (said,) = ask(stream, ROUTES, "orders")
    assert ask(stream, ROUTES, "other", response_nonce="0") == []
    assert acknowledge(stream, said, "orders") == []


def test_more_names_are_answered_at_once() -> None:
    """A client that wants another resource gets all that it wants of the type."""
    plane = Plane()
    plane.targets["payments"] = plane.targets["orders"]
    stream = Subscription(plane.find)
    (said,) = ask(stream, LISTENER, "orders")
    (both,) = acknowledge(stream, said, "orders", "payments")
    assert len(both.resources) == 2


def test_versions_survive_a_restart() -> None:
    """Two control planes that know the same say the same version."""
    said = [ask(Subscription(Plane().find), LISTENER, "orders")[0] for _ in range(2)]
    assert said[0].version_info == said[1].version_info


def test_a_rule_that_is_gone_is_answered_until_nobody_asks() -> None:
    """A client that has not heard of the new routes still finds the cluster of the old one."""
    plane = Plane()
    rule = Rule({"v1": 1}, headers={"x": "y"})
    plane.targets["orders"] = Target(Route({"v1": "-"}, rules=(rule,)), {"v1": (A,)}, "")
    assert plane.find(CLUSTER, "orders/0") is not None
    plane.targets["orders"] = Target(Route({"v1": "-"}), {"v1": (A,)}, "")
    assert plane.find(CLUSTER, "orders/0") is not None
    assert plane.find(CLUSTER, "nobody/0") is None
    assert plane.find(CLUSTER, "orders/x") is None


def test_nobody_is_ejected_where_there_is_nobody_else() -> None:
    """A client looks for outliers only among several endpoints, or where there is a fallback."""
    plane = Plane()
    for known, looks in (((A,), False), ((A, B), True)):
        plane.targets["orders"] = Target(Route({"v1": "-"}), {"v1": known}, "")
        found = plane.find(CLUSTER, "orders/rest")
        assert found is not None
        assert pb.Cluster.FromString(found.value).HasField("outlier_detection") == looks


def test_what_has_not_been_looked_up_is_waited_for() -> None:
    """Endpoints are said when all of their names are known, and not as none before."""
    plane = Plane()
    plane.targets["orders"] = Target(Route({"v1": "-"}), {}, "")
    assert plane.find(ENDPOINTS, "orders/rest") is None
    plane.targets["orders"] = Target(Route({"v1": "-"}), {"v1": ()}, "")
    assert plane.find(ENDPOINTS, "orders/rest") is not None


def test_a_client_is_bounded() -> None:
    """Nobody wants more than a thousand resources of a type; strange types are not answered."""
    stream = Subscription(Plane().find)
    assert ask(stream, "type.googleapis.com/strange", "x") == []
    with pytest.raises(TooMany):
        ask(stream, LISTENER, *map(str, range(MAX_NAMES + 1)))
