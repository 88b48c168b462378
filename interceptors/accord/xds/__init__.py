"""Mutual TLS that renews itself, endpoints by push and traffic split, by gRPC's own xDS client.

`accord.Mesh(name, identity=...)` uses it; `python -m accord.xds` serves a fleet. See docs/xds.md.
"""

from accord.xds.client import XdsError, remove_socket
from accord.xds.plane import ControlPlane, TargetState
from accord.xds.routes import Ejection, Route, RouteError, Rule, parse

__all__ = [
    "ControlPlane",
    "Ejection",
    "Route",
    "RouteError",
    "Rule",
    "TargetState",
    "XdsError",
    "parse",
    "remove_socket",
]
