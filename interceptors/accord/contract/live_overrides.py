"""Live policy: changes to the contract's policies that need no restart.

    contract defaults < policy file < live policy < the call's own options

An override is an `accord.ops.v1.Override` in its JSON form, per method. It is checked like a
contract before it is in force: one that does not parse, contradicts itself or goes below the
contract's floor is refused, logged once and shown to the operator, and what was in force stays.

No operator can lock himself out: what he operates the process by is out of reach, for faults too.
"""

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, replace
from enum import IntEnum
from pathlib import Path
from typing import Final, Protocol

from google.protobuf import json_format

from accord._files import often, stamp
from accord._log import log
from accord.contract.merging import merge_options
from accord.contract.names import METHOD, OPERATED
from accord.contract.policy_types import ContractError, Dark, MethodPolicy, ShadowPolicy
from accord.contract.registry import live_policy, pure, travelling_policy
from accord.ops.v1 import mesh_pb2

RETRY_INTERVAL: Final = 0.5
"""Seconds before a source that failed is opened again."""

MAX_DOCUMENT: Final = 64 * 1024
"""Characters of the largest override, in its JSON form."""


class Layer(IntEnum):
    """Where an override comes from; the greater one wins. Numbers of `ops.v1.Source`."""

    FILE = 1
    LIVE = 2


class OverrideRefused(Exception):
    """An override that will not be in force. `method` is "pkg.Service/Method"."""

    def __init__(self, method: str, problem: str) -> None:
        super().__init__(method, problem)
        self.method = method
        self.problem = problem

    def __str__(self) -> str:
        return self.problem


class UnknownMethod(OverrideRefused):
    """The process has no descriptor of the method: it neither serves nor calls it, so far."""


class PolicySource(Protocol):
    """Where overrides are kept, as JSON documents by method name, "pkg.Service/Method"."""

    def watch(self) -> AsyncIterator[Mapping[str, str]]:
        """All documents: first as they are, then again after every change.

        May raise or end when the connection is lost; it is called again then.
        """
        ...


class PolicyStore(PolicySource, Protocol):
    """A source that can be written, such as a key-value store."""

    async def put(self, method: str, document: str) -> None:
        """Keep a document; `watch` reports it everywhere."""
        ...

    async def delete(self, method: str) -> None:
        """Forget a document; without one, nothing happens."""
        ...


class FileSource:
    """A policy file: a JSON object from method names to overrides. No file: no overrides."""

    def __init__(self, path: Path) -> None:
        self._path = path

    async def watch(self) -> AsyncIterator[Mapping[str, str]]:
        """See `PolicySource`. Raises OverrideRefused for a file that is not such an object."""
        came: asyncio.Queue[str | OSError | None] = asyncio.Queue()
        loop = asyncio.get_running_loop()
        reader = _Reader(self._path, lambda said: loop.call_soon_threadsafe(came.put_nowait, said))
        await asyncio.to_thread(reader.look)
        often(reader.look)
        try:
            while True:
                text = await came.get()
                if isinstance(text, OSError):
                    raise text
                yield _documents(self._path, text)
        finally:
            reader.over = True


class _Reader:
    """Tells what a file says, whenever that has changed: its text, None for no file, or why not."""

    def __init__(self, path: Path, tell: Callable[[str | OSError | None], object]) -> None:
        self.over = False
        self._path = path
        self._tell = tell
        self._seen: object = self
        self._stamp: object = self

    def look(self) -> bool:
        """Read the file, if it has changed; whether anybody still wants to know."""
        found = stamp(self._path)
        if self.over or found == self._stamp:
            return not self.over
        self._stamp = found
        try:
            text = self._text()
            if text == self._seen:
                return True
            self._seen = text
            self._tell(text)
        except OSError as error:
            self._tell(error)
            return False
        except RuntimeError:  # the loop is closed
            return False
        return True

    def _text(self) -> str | None:
        try:
            return self._path.read_text()
        except FileNotFoundError:
            return None
        except ValueError:
            return "not text"


def _documents(path: Path, text: str | None) -> dict[str, str]:
    if text is None:
        return {}
    try:
        found = json.loads(text)
    except ValueError as error:
        raise OverrideRefused("", f"{path}: {error}") from None
    if not isinstance(found, dict):
        raise OverrideRefused("", f"{path}: is not a JSON object")
    return {method: json.dumps(document) for method, document in found.items()}


@dataclass(frozen=True, slots=True)
class InForce:
    """The override of one method: all layers as one, and the topmost of them."""

    policy: MethodPolicy
    override: mesh_pb2.Override
    layer: Layer


@dataclass(frozen=True, slots=True)
class Refusal:
    """An override that was refused; `method` is empty for a file that cannot be read at all."""

    method: str
    layer: Layer
    problem: str


class Overrides:
    """The policies of one process; method names as they travel.

    Changed inside one event loop; any thread may ask for a policy.
    """

    def __init__(self) -> None:
        self._layers: dict[Layer, dict[str, mesh_pb2.Override]] = {layer: {} for layer in Layer}
        self._in_force: dict[str, InForce] = {}
        self._unknown: set[str] = set()
        self.generation = 0
        """Grows when a policy has changed: until then, who keeps one need not ask again.

        But for a method without a descriptor: its descriptor may have been imported since.
        """
        self._refused: dict[tuple[str, Layer], tuple[str, str]] = {}

    def policy(self, method: str) -> MethodPolicy:
        """The policy of a method as it is now; the same object until it changes.

        Raises ContractError, as `travelling_policy`.
        """
        found = self._in_force.get(method)
        if found is not None:
            return found.policy
        if method in self._unknown:
            self._settle(method)  # its descriptor may have been imported since
            found = self._in_force.get(method)
        return travelling_policy(method) if found is None else found.policy

    def in_force(self, method: str) -> InForce | None:
        """The override of a method, or None."""
        return self._in_force.get(method)

    def methods(self) -> set[str]:
        """Methods with an override."""
        return set(self._in_force)

    def refused(self) -> list[Refusal]:
        """What was refused and has not been replaced since, by method."""
        return [
            Refusal(method, layer, problem)
            for (method, layer), (_, problem) in sorted(self._refused.items())
        ]

    def check(self, method: str, override: mesh_pb2.Override) -> None:
        """Raise OverrideRefused if `override` could not be kept, or be in force as live policy."""
        self._combine(method, {Layer.LIVE: override})
        _fits(method[1:], document(override))

    def set(self, method: str, override: mesh_pb2.Override, layer: Layer = Layer.LIVE) -> None:
        """Put an override into force. Raises OverrideRefused, and then nothing has changed."""
        self._combine(method, {layer: override})
        self._layers[layer][method] = override
        self._refused.pop((method[1:], layer), None)
        self._settle(method)

    def clear(self, method: str, layer: Layer = Layer.LIVE) -> None:
        """Take an override out of force; without one, nothing happens."""
        self._refused.pop((method[1:], layer), None)
        if self._layers[layer].pop(method, None) is not None:
            self._settle(method)

    def replace(self, documents: Mapping[str, str], layer: Layer) -> None:
        """Make `documents` the whole of a layer. Those that are refused change nothing."""
        named = {f"/{method}": text for method, text in documents.items()}
        for method in self._layers[layer].keys() - named.keys():
            self.clear(method, layer)
        for method, source in list(self._refused):
            if source is layer and f"/{method}" not in named:
                del self._refused[method, source]
        for method, text in named.items():
            try:
                self.set(method, parse(method[1:], text), layer)
            except UnknownMethod:
                self._layers[layer][method] = parse(method[1:], text)
                self._unknown.add(method)
            except OverrideRefused as refusal:
                self._refuse(layer, method[1:], text, refusal.problem)

    async def follow(self, source: PolicySource, layer: Layer = Layer.LIVE) -> None:
        """Keep a layer as its source says, for ever. What was in force survives an outage."""
        away = False
        while True:
            try:
                async for documents in source.watch():
                    away = False
                    self.replace(documents, layer)
            except OverrideRefused as refusal:
                self._refuse(layer, refusal.method, "", refusal.problem)
            except Exception as error:  # whatever a source raises when it is away
                if not away:
                    log(
                        logging.WARNING,
                        "live policy cannot be read",
                        source=layer.name,
                        error=error,
                    )
                away = True
            await asyncio.sleep(RETRY_INTERVAL)

    def _combine(self, method: str, changed: Mapping[Layer, mesh_pb2.Override]) -> InForce | None:
        merged, top = mesh_pb2.Override(), None
        for layer in Layer:
            override = changed.get(layer) or self._layers[layer].get(method)
            if override is not None:
                merge_options(override, merged)
                top = layer
        if top is None:
            return None
        if not METHOD.fullmatch(method[1:]):
            raise OverrideRefused(
                method[1:], f"{method[1:]!r} is not a method such as 'pkg.Service/Method'"
            )
        if method.startswith(OPERATED):
            raise OverrideRefused(method[1:], "is what the process is operated by")
        dark = _dark(method[1:], merged)
        try:
            policy = live_policy(method, merged.policy, dark, f"{top.name.lower()} policy")
            policy = replace(policy, shadow=_shadow(policy, merged))
        except ContractError as error:
            raise OverrideRefused(method[1:], error.finding) from None
        except KeyError:
            raise UnknownMethod(method[1:], "the process does not know the method") from None
        return InForce(policy, merged, top)

    def _settle(self, method: str) -> None:
        """Put what the layers say of a method into force."""
        try:
            found = self._combine(method, {})
        except UnknownMethod:
            return
        except OverrideRefused as refusal:
            # It made sense only together with what was removed, or not for this contract.
            found = None
            for layer in Layer:
                if self._layers[layer].pop(method, None) is not None:
                    self._refuse(layer, method[1:], "", refusal.problem)
        self._unknown.discard(method)
        if found == self._in_force.get(method):
            return
        if found is None:
            self._in_force.pop(method, None)
        else:
            self._in_force[method] = found
        self.generation += 1  # behind that: whoever sees it finds the policy
        log(
            logging.INFO,
            "the policy of a method has changed",
            method=method[1:],
            override="" if found is None else document(found.override),
        )

    def _refuse(self, layer: Layer, method: str, text: str, problem: str) -> None:
        if self._refused.get((method, layer)) == (text, problem):
            return  # once is enough
        self._refused[method, layer] = (text, problem)
        log(
            logging.ERROR,
            "an override was refused",
            method=method,
            source=layer.name,
            problem=problem,
        )


def parse(method: str, text: str) -> mesh_pb2.Override:
    """The override in a JSON document. Raises OverrideRefused."""
    _fits(method, text)
    if not text.lstrip().startswith("{"):
        raise OverrideRefused(method, "does not parse: is not a JSON object")  # "[]" would
    try:
        return json_format.Parse(text, mesh_pb2.Override())
    except (json_format.ParseError, RecursionError) as error:
        raise OverrideRefused(method, f"does not parse: {str(error)[:200]}") from None


def document(override: mesh_pb2.Override) -> str:
    """An override as its JSON document."""
    return json_format.MessageToJson(override, indent=None, preserving_proto_field_name=True)


def _fits(method: str, text: str) -> None:
    if len(text) > MAX_DOCUMENT:
        raise OverrideRefused(method, f"is longer than {MAX_DOCUMENT} characters")


def _dark(method: str, override: mesh_pb2.Override) -> list[Dark]:
    try:
        return [Dark(number) for number in override.dark]
    except ValueError:
        raise OverrideRefused(method, "dark: names a policy that has no dark mode") from None


def _shadow(policy: MethodPolicy, override: mesh_pb2.Override) -> ShadowPolicy | None:
    if not override.HasField("shadow"):
        return None
    method, wanted = policy.method[1:], override.shadow
    if policy.streaming or not pure(policy.method):
        problem = "only of an RPC with NO_SIDE_EFFECTS, one request and one response"
        raise OverrideRefused(method, f"shadow: {problem}")
    if (
        not wanted.target
        or not 1 <= wanted.percent <= 100
        or not 0 <= wanted.max_concurrent <= 1000
    ):
        raise OverrideRefused(method, "shadow: target, percent 1 to 100, max_concurrent 0 to 1,000")
    return ShadowPolicy(wanted.target, wanted.percent, wanted.max_concurrent or 10)
