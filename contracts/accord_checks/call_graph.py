"""Who calls whom, as contracts declare it."""

from collections.abc import Mapping

from accord_checks.declarations import Rpc


class CallGraph:
    """The declared calls between RPCs that are known."""

    def __init__(self, rpcs: Mapping[str, Rpc]) -> None:
        self._calls: dict[str, list[tuple[int, Rpc]]] = {}
        self._callers: dict[str, list[Rpc]] = {}
        for rpc in rpcs.values():
            for index, call in enumerate(rpc.written.calls):
                callee = rpcs.get(call.method)
                if callee is not None:
                    self._calls.setdefault(rpc.name, []).append((index, callee))
                    self._callers.setdefault(callee.name, []).append(rpc)
        # How deep an RPC lies below the edge, and who calls it there; none on or below a circle.
        self._depth: dict[str, int] = {}
        self._deepest: dict[str, Rpc | None] = {}
        self._measure(rpcs)

    def calls(self, rpc: Rpc) -> list[tuple[int, Rpc]]:
        """What an RPC calls, each with its place in the list as it is written."""
        return self._calls.get(rpc.name, [])

    def longest_chain(self, rpc: Rpc) -> list[Rpc] | None:
        """The longest chain of callers from the edge to `rpc`, itself included.

        None if one of them lies on a circle.
        """
        return _chain(rpc, self._deepest) if rpc.name in self._deepest else None

    def _measure(self, rpcs: Mapping[str, Rpc]) -> None:
        """Kahn's algorithm: an RPC is looked at after all of its callers."""
        missing = {name: len(self._callers.get(name, ())) for name in rpcs}
        waiting = [rpc for rpc in rpcs.values() if not missing[rpc.name]]
        for rpc in waiting:
            callers = self._callers.get(rpc.name, ())
            deepest = max(callers, key=lambda caller: self._depth[caller.name], default=None)
            self._depth[rpc.name] = 0 if deepest is None else self._depth[deepest.name] + 1
            self._deepest[rpc.name] = deepest
            for _, callee in self.calls(rpc):
                missing[callee.name] -= 1
                if not missing[callee.name]:
                    waiting.append(callee)

    def way(self, start: Rpc, end: Rpc) -> list[Rpc] | None:
        """A shortest way along calls, both ends included; None if there is none."""
        before: dict[str, Rpc | None] = {start.name: None}
        waiting = [start]
        for rpc in waiting:
            if rpc.name == end.name:
                return _chain(rpc, before)
            for _, callee in self.calls(rpc):
                if callee.name not in before:
                    before[callee.name] = rpc
                    waiting.append(callee)
        return None


def _chain(end: Rpc, before: Mapping[str, Rpc | None]) -> list[Rpc]:
    """From the first RPC to `end`; `before` says what comes before each."""
    chain, rpc = [end], before[end.name]
    while rpc is not None:
        chain.append(rpc)
        rpc = before[rpc.name]
    return chain[::-1]
