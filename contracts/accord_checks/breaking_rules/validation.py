"""What requests may hold: the rules of protovalidate, by which servers refuse them.

Of messages that RPCs receive, whether or not their services state a policy. Found by `changes`:
they are of no single RPC.
"""

from collections.abc import Iterator
from typing import Any, Final

from google.protobuf import descriptor as pb

from accord_checks.breaking_rules.change import Change, ChangeRule, Risk, accepts, far
from accord_checks.contracts import Contracts, field_type, reachable
from accord_checks.declarations import File
from accord_checks.formatting import shown
from accord_checks.protovalidate import Validation

_EXAMPLE: Final = """
rpc GetThing(GetThingRequest) returns (GetThingResponse) {{}}
message GetThingRequest {{
  string thing_id = 1{};
}}
"""


def _example(rule: str) -> str:
    return _EXAMPLE.format(f" [(buf.validate.field).{rule}]" if rule else "").strip("\n")


TIGHTENED: Final = ChangeRule(
    "POLICY_VALIDATION_TIGHTENED",
    Risk.BREAKING,
    "No request that was accepted is refused by a rule that is new or stricter.",
    "callers that sent it are refused with INVALID_ARGUMENT",
    _example("string.max_len = 200"),
    _example("string.max_len = 100"),
)
REMOVED: Final = ChangeRule(
    "POLICY_VALIDATION_REMOVED",
    Risk.BREAKING,
    "No field loses a rule but `required`, and no bound grows more than tenfold.",
    "what the server relied on is not checked any more",
    _example("string.max_len = 200"),
    _example(""),
)
LOOSENED: Final = ChangeRule(
    "POLICY_VALIDATION_LOOSENED",
    Risk.RISKY,
    "No request that was refused is accepted by a rule that is less strict.",
    "the server, and all that reads what it keeps, gets values that it never saw",
    _example("string.max_len = 200"),
    _example("string.max_len = 300"),
)
_INSTEAD: Final = {
    TIGHTENED: "keep the rule, or add a field beside it",
    REMOVED: "keep it, or write what holds now",
    LOOSENED: "see that whoever reads it bears more",
}

# By the last part of a rule's name. What is neither grows stricter with any change.
_UPPER: Final = frozenset(
    {"max_len", "max_bytes", "max_items", "max_pairs", "lte", "within", "not_in"}
)
_LOWER: Final = frozenset({"min_len", "min_bytes", "min_items", "min_pairs", "gte", "in"})


def changes(then: Contracts, now: Contracts) -> Iterator[Change]:
    """All changes of rules of requests, fields and messages, in both versions."""
    before, after = Validation(then), Validation(now)
    for old, new, by in _received(then, now):
        where = _Where(then, now, old, new, by)
        yield from _changes(where, before.of_message(old), after.of_message(new))
        fields = {field.number: field for field in old.fields}
        for field in new.fields:
            was = fields.get(field.number)
            if was is None:
                if after.refuses_empty(field):
                    yield _Where(then, now, old, field, by).change(
                        TIGHTENED, "required", None, True
                    )
            elif field_type(was) == field_type(field):
                where = _Where(then, now, was, field, by)
                yield from _changes(where, before.of_field(was), after.of_field(field))


def _received(
    then: Contracts, now: Contracts
) -> Iterator[tuple[pb.Descriptor, pb.Descriptor, str]]:
    """Messages that an RPC receives in both versions, each once, with the first such RPC."""
    seen: set[str] = set()
    for name, rpc in now.rpcs.items():
        was = then.rpcs.get(name)
        if was is None:
            continue
        old = {message.full_name: message for message in reachable(was.descriptor.input_type)}
        for message in reachable(rpc.descriptor.input_type):
            known = message.full_name in seen or now.files[message.file.name].imported
            if message.full_name in old and not known and not message.GetOptions().map_entry:
                seen.add(message.full_name)
                yield old[message.full_name], message, rpc.short


def _changes(where: "_Where", was: dict[str, Any], is_: dict[str, Any]) -> Iterator[Change]:
    if is_ or not was.keys() - {"required"}:
        for name in dict.fromkeys((*was, *is_)):
            rule = _judged(name, was.get(name), is_.get(name))
            if rule is not None and (was or name != "ignore"):
                yield where.change(rule, name, was.get(name), is_.get(name))
    else:
        yield where.change(REMOVED, "the rules", ", ".join(was), None)


def _judged(name: str, was: Any, is_: Any) -> ChangeRule | None:
    if was == is_:
        return None
    leaf = name.rpartition(".")[2]
    if was is None or is_ is None:
        # To ignore a rule for an empty value is the other way round.
        if (was is None) == (leaf != "ignore"):
            return TIGHTENED
        return LOOSENED if leaf in ("required", "ignore") else REMOVED
    if isinstance(was, (int, float)) and _grows(leaf, was, is_) and far(is_, was or 1):
        return REMOVED
    if leaf in _UPPER:
        stricter = bool(is_ - was) if isinstance(was, frozenset) else is_ < was
    elif leaf in _LOWER:
        stricter = bool(was - is_) if isinstance(was, frozenset) else is_ > was
    else:
        stricter = True
    return TIGHTENED if stricter else LOOSENED


def _grows(leaf: str, was: float, is_: float) -> bool:
    return (leaf in _UPPER and is_ > was) or (leaf in _LOWER and is_ < was)


class _Where:
    """A field or a message in both versions, and an RPC that receives it."""

    def __init__(self, then: Contracts, now: Contracts, old: Any, new: Any, by: str) -> None:
        self._contracts, self._old, self._new, self._by = then, old, new, by
        self._then, self._now = then.files[old.file.name], now.files[new.file.name]
        holder = new.containing_type if isinstance(new, pb.FieldDescriptor) else None
        self._name = new.name if holder is None else f"{holder.name}.{new.name}"

    def change(self, rule: ChangeRule, name: str, was: Any, is_: Any) -> Change:
        """That a rule of it went from one value to another; None is none."""
        went = " to ".join("none" if value is None else _said(value, name) for value in (was, is_))
        value = f"{self._name} {name} {went}"
        what = f"{name} of {self._name}, which {self._by} receives, went from {went}"
        return Change(
            rule,
            rule.risk,
            self._new.full_name,
            what,
            _INSTEAD[rule],
            value,
            self._now.place(self._new.full_name),
            self._then.place(self._old.full_name),
            accepts(self._contracts, _comments(self._now, self._new), rule.id, value),
        )


def _said(value: Any, name: str) -> str:
    timed = isinstance(value, float) and "duration." in name
    return shown(value) if timed or not isinstance(value, float) else f"{value:g}"


def _comments(file: File, found: Any) -> list[str]:
    """The comments above it and above what it is in."""
    comments = []
    while found is not None:
        comments.append(file.positions.comment(file.paths[found.full_name]))
        found = found.containing_type
    return comments
