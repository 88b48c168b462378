"""What `shopctl mesh` prints of a process."""

from accord.ops.v1 import mesh_pb2 as pb
from shopctl.commands.mesh import _lines


def test_routes_are_printed() -> None:
    """A line for each version with its share and endpoints, and one for each rule."""
    canary = pb.Route(
        target="orders", version="v2", weight=5, endpoints=["10.0.0.7:9051", "10.0.0.8:9051"],
        resting=["10.0.0.8:9051"], rules=["x-canary: yes to v2 1"],
    )  # fmt: skip
    stable = pb.Route(target="orders", version="v1", weight=95)
    assert list(_lines(pb.GetStateResponse(routes=[stable, canary]))) == [
        "route    orders  v1  weight 95, no endpoint",
        "route    orders  v2  weight 5, 10.0.0.7:9051, 10.0.0.8:9051, 1 resting",
        "rule     orders  x-canary: yes to v2 1",
    ]
