"""The services and events of an image, with their policies resolved: what every export reads."""

import re
from collections.abc import Iterator
from typing import Final

from google.protobuf import descriptor_pb2

from accord.contract import EdgePolicy
from accord_checks import Refused
from accord_checks.contracts import Contracts
from accord_checks.declarations import Event, Rpc
from accord_checks.image import imported
from accord_checks.protovalidate import Validation

_FIELD: Final = re.compile(r"\{\w+\}")


class ResolvedContracts:
    """What an image holds, every policy valid.

    Services are sorted by name, events by subject and version.
    """

    def __init__(self, image: descriptor_pb2.FileDescriptorSet) -> None:
        """Read an image.

        Raises:
            Refused: it is incomplete, or a policy in it is invalid.
        """
        contracts = Contracts(image.file, (file.name for file in image.file if imported(file)))
        self.image = image
        self.validation = Validation(contracts)
        """The rules of its fields."""
        self._comments = {
            name: _clean(comment)
            for file in contracts.files.values()
            for name, path in file.paths.items()
            if (comment := file.positions.comment(path))
        }
        self.services = tuple(sorted(contracts.own_services, key=lambda service: service.name))
        self.events = tuple(
            sorted(
                contracts.own_events, key=lambda event: (event.policy.subject, event.policy.version)
            )
        )
        for rpc in self.rpcs():
            if rpc.reading.problems:
                raise Refused(str(rpc.reading.problems[0]))
        for event in contracts.own_events:
            if event.problem is not None:
                raise Refused(str(event.problem))

    def routes(self) -> list[tuple[Rpc, EdgePolicy]]:
        """What is reached from outside; of paths that match alike the narrower one first."""
        found = [(rpc, rpc.policy.edge) for rpc in self.rpcs() if rpc.policy.edge is not None]
        return sorted(found, key=lambda it: _FIELD.sub("~", it[1].path) + "~")

    def rpcs(self) -> Iterator[Rpc]:
        """All RPCs, service by service."""
        for service in self.services:
            yield from service.rpcs

    def publishers(self, event: Event) -> list[str]:
        """The services of an event's package, by full name: it is theirs to publish."""
        package = event.descriptor.file.package
        return [
            service.name for service in self.services if service.descriptor.file.package == package
        ]

    def comment(self, name: str) -> str:
        """What the contract says above the thing of that full name; empty if it says nothing.

        A value of an enum is named after it, "pkg.Color.COLOR_RED".
        """
        return self._comments.get(name, "")


def _clean(comment: str) -> str:
    """A comment without the one space after `//` in each line, and without what it accepts."""
    lines = (line.removeprefix(" ").rstrip() for line in comment.splitlines())
    return "\n".join(line for line in lines if not line.startswith("buf:lint:ignore")).strip()
