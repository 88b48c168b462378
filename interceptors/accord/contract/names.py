"""Names that users write: of methods, services and targets. One that is none is refused at once.

What was probably meant is said with it, by the likeness of difflib (Ratcliff and Obershelp).
"""

import re
import sys
from collections.abc import Iterable, Iterator
from difflib import get_close_matches
from typing import Final

from google.protobuf import descriptor_pool
from google.protobuf.descriptor import Descriptor, FileDescriptor, MethodDescriptor
from google.protobuf.message import Message

METHOD: Final = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*/[A-Za-z_]\w*", re.ASCII)
"""What the name of a method looks like, without the first slash."""

GRPC: Final = "/grpc."
"""Beginning of gRPC's own methods, as they travel: health, reflection, channelz."""

OPERATED: Final = ("/accord.ops.", GRPC)
"""Beginnings of the methods by which a process is watched and operated: gRPC's and ours."""


def meant(name: str, known: Iterable[str], likeness: float = 0.7) -> str:
    """For the end of a message: the known name that is most like this one; "" if none is."""
    near = get_close_matches(name, known, 1, likeness)
    return f"; did you mean {near[0]!r}?" if near else ""


def method_name(name: str) -> str:
    """A method as it travels, "/pkg.Service/Method", of its name with or without the first slash.

    A service that the process has no descriptor of may have any method.

    Raises:
        ValueError: this is no such name, the service has no such method, or there is no such
            service but one whose name is nearly the same.
    """
    service, _, method = name.removeprefix("/").partition("/")
    if not method:
        raise ValueError(f"{name!r} is not a method such as 'pkg.Service/Method'")
    try:
        found = descriptor_pool.Default().FindServiceByName(service)
    except KeyError:
        # Many services have names alike, and this one's code may be imported later.
        if hint := meant(service, services(), 0.95):
            raise ValueError(f"there is no service {service!r}{hint}") from None
    else:
        if method not in found.methods_by_name:
            hint = meant(method, found.methods_by_name)
            raise ValueError(f"{service} has no method {method!r}{hint}")
    return f"/{service}/{method}"


def described(path: str) -> MethodDescriptor | None:
    """The descriptor that this process has of a method as it travels, which may be any text."""
    name = path[1:].replace("/", ".") if path.startswith("/") else ""
    try:
        return descriptor_pool.Default().FindMethodByName(name)
    except KeyError:
        return None


def wrong_response(method: str, kind: type) -> str | None:
    """What is wrong with a type as that of a method's responses; bytes may be of any."""
    found = described(method)
    given = kind.DESCRIPTOR.full_name if issubclass(kind, Message) else kind.__qualname__
    if found is None or given in (found.output_type.full_name, "bytes"):
        return None
    return f"{method[1:]} answers with {found.output_type.full_name}, not {given}"


def services() -> Iterator[str]:
    """The services of the generated code that has been imported."""
    for module in tuple(sys.modules.values()):
        file = getattr(module, "__dict__", {}).get("DESCRIPTOR")
        if isinstance(file, FileDescriptor):
            yield from (service.full_name for service in file.services_by_name.values())


def leads_to_field(message: Descriptor | None, path: str) -> bool:
    """Whether a dotted path leads to a field."""
    for name in path.split("."):
        found = message.fields_by_name.get(name) if message is not None else None
        if found is None:
            return False
        message = found.message_type
    return True
