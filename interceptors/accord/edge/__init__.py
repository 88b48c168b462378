"""The edge: REST, server-sent events and gRPC-Web for callers outside of the mesh.

    edge = Edge(mesh, routes_of("parcels.v1.ParcelService"),
                targets={"parcels.v1.ParcelService": "parcels"},
                authenticator=Authenticator(KeySet.from_file("jwks.json"),
                                            issuer="https://login.example", audience="parcels"))

`edge` is an ASGI application; `uvicorn` serves it. What is reachable, and for whom, is said by the
contract: `(accord.v1.edge)`. See docs/edge.md. Needs `accord[edge]`.
"""

from accord.edge.app import Edge
from accord.edge.auth import Authenticator, Caller, KeySet
from accord.edge.limits import EdgeLimits
from accord.edge.routes import Route, routes_of

__all__ = ["Authenticator", "Caller", "Edge", "EdgeLimits", "KeySet", "Route", "routes_of"]
