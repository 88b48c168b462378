"""The image with `google.api.http` on every RPC that has a route: what other gateways read.

Contracts need not import googleapis for it; what a gateway needs to show errors is added, too.
"""

import graphlib

from google.api import annotations_pb2, http_pb2
from google.protobuf import any_pb2, descriptor_pb2, duration_pb2
from google.rpc import error_details_pb2, status_pb2

from accord_checks.export.resolved_contracts import ResolvedContracts

_HTTP = annotations_pb2.DESCRIPTOR.name
_ADDED = (
    *(any_pb2, descriptor_pb2, duration_pb2),
    *(http_pb2, annotations_pb2, status_pb2, error_details_pb2),
)


def annotated(contracts: ResolvedContracts) -> descriptor_pb2.FileDescriptorSet:
    """A copy of the image of contracts, with their routes; a file comes after its imports."""
    routes = {rpc.descriptor.full_name: edge for rpc, edge in contracts.routes()}
    files: dict[str, descriptor_pb2.FileDescriptorProto] = {}
    for module in _ADDED:
        module.DESCRIPTOR.CopyToProto(files.setdefault(module.DESCRIPTOR.name, _File()))
    for given in contracts.image.file:
        files[given.name] = file = _File()
        file.CopyFrom(given)
        for service in file.service:
            for method in service.method:
                edge = routes.get(f"{file.package}.{service.name}.{method.name}".lstrip("."))
                if edge is None:
                    continue
                rule = method.options.Extensions[annotations_pb2.http]
                setattr(rule, edge.verb.lower(), edge.path)
                rule.body = "" if edge.verb in ("GET", "DELETE") else "*"
                if _HTTP not in file.dependency:
                    file.dependency.append(_HTTP)
    order = graphlib.TopologicalSorter({name: files[name].dependency for name in sorted(files)})
    return descriptor_pb2.FileDescriptorSet(file=[files[name] for name in order.static_order()])


_File = descriptor_pb2.FileDescriptorProto
