"""What no RPC of a service states is one mistake, not one for each of them."""

from collections.abc import Callable, Iterator

from accord_checks.elements import Place, Rpc
from accord_checks.model import Contracts


def lacking(
    contracts: Contracts, among: Callable[[Rpc], bool], states: Callable[[Rpc], bool]
) -> Iterator[tuple[Place, str]]:
    """Who does not state something, of some RPCs of each service: where to say it, and its name.

    Each RPC at its own place; a service whose RPCs all lack it, once: it needs a default.
    """
    for service in contracts.own_services:
        asked = [rpc for rpc in service.rpcs if service.stated and among(rpc)]
        missing = [rpc for rpc in asked if not states(rpc)]
        if len(missing) > 1 and len(missing) == len(asked):
            yield service.option_place, f"any of the {len(asked)} RPCs of {service.descriptor.name}"
        else:
            yield from ((rpc.place, rpc.short) for rpc in missing)
