"""The rules of protovalidate that are written at fields, as far as bounds go.

What an expression of CEL bounds is not worked out: it does not count.

Read with the classes of the contracts' own pool: whatever copy of buf/validate/validate.proto they
import, and none in this process.
"""

import math
import re
from typing import Any, Final

from google.protobuf import descriptor as pb
from google.protobuf import message_factory
from google.protobuf.message import Message

from accord_checks.contracts import Contracts
from accord_checks.declarations import File
from accord_checks.formatting import duration_seconds

_STRING_BOUNDS: Final = frozenset({"const", "in", "len", "max_len", "len_bytes", "max_bytes"})
# Formats that have a longest form.
_SHORT_FORMATS: Final = frozenset(
    {"hostname", "host_and_port", "address", "uuid", "tuuid", "ulid", "ip", "ipv4", "ipv6"}
    | {f"{ip}_{what}" for ip in ("ip", "ipv4", "ipv6") for what in ("with_prefixlen", "prefix")}
)
_FORMATS: Final = _SHORT_FORMATS | {"email", "uri", "uri_ref", "well_known_regex"}
_BYTES_BOUNDS: Final = frozenset({"const", "in", "len", "max_len", "ip", "ipv4", "ipv6", "uuid"})
_CLASSES = re.compile(r"\\.|\[\^?\]?(?:\[:\w+:\]|\\.|[^\]\\])*\]")
_ENDLESS = re.compile(r"[*+]|\{\d+,\}")
_EXCLUSIVE: Final = {"lt": -1, "gt": 1}
_ZERO_IGNORED: Final = frozenset({"IGNORE_IF_ZERO_VALUE", "IGNORE_ALWAYS"})


class Validation:
    """What the fields of some contracts allow."""

    def __init__(self, contracts: Contracts) -> None:
        self._extensions: dict[str, tuple[pb.FieldDescriptor, Any]] = {}
        found = contracts.extension("buf.validate.field")
        self._extension = found if found is not None and _known(found) else None
        for kind in ("field", "oneof", "message") if self._extension is not None else ():
            extension = contracts.extension(f"buf.validate.{kind}")
            if extension is not None and extension.message_type is not None:
                options = contracts.message(f"google.protobuf.{kind.capitalize()}Options")
                self._extensions[kind] = extension, message_factory.GetMessageClass(options)

    def spoken(self, file: File) -> bool:
        """Whether a file can state bounds: it imports what it needs for them."""
        if self._extension is None:
            return False
        needed: str = self._extension.file.name  # type: ignore[attr-defined]
        return needed in file.proto.dependency

    def unbounded(self, field: pb.FieldDescriptor) -> str | None:
        """The bound that a string, bytes, list or map lacks, as an example; None if it has one."""
        rules = self._rules(field)
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            return self._unbounded_map(field, field.message_type, rules)
        if field.is_repeated:
            if not self.counted(field):
                return "repeated.max_items = 100"
            inner = rules.repeated.items if rules is not None else None
            missing = _scalar(field, inner)
            return f"repeated.items.{missing}" if missing else None
        return _scalar(field, rules)

    def counted(self, field: pb.FieldDescriptor) -> bool:
        """Whether a list, or a map, cannot have more than so many entries.

        By its rules, or because no two are the same and there are only so many: of an enum whose
        numbers are known, of a list of values, of `bool`.
        """
        rules = self._rules(field)
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            key = field.message_type.fields_by_name["key"]
            return "max_pairs" in _written(rules, "map") or _finite(key, rules, "map")
        written = _written(rules, "repeated")
        return "max_items" in written or (
            "unique" in written and rules.repeated.unique and _finite(field, rules, "repeated")
        )

    def _unbounded_map(
        self, field: pb.FieldDescriptor, entry: pb.Descriptor, rules: Any
    ) -> str | None:
        written = _written(rules, "map")
        if not self.counted(field):
            return "map.max_pairs = 100"
        for part, name in (("key", "keys"), ("value", "values")):
            inner = getattr(rules.map, name) if name in written else None
            missing = _scalar(entry.fields_by_name[part], inner)
            if missing:
                return f"map.{name}.{missing}"
        return None

    def refuses_empty(self, field: pb.FieldDescriptor) -> bool:
        """Whether a request in which this field is not set is refused."""
        rules = self._rules(field)
        if rules is None:
            return False
        if rules.required:
            return True
        ignored = rules.DESCRIPTOR.fields_by_name["ignore"].enum_type.values_by_number
        found = ignored.get(rules.ignore)
        if field.has_presence or (found is not None and found.name in _ZERO_IGNORED):
            return False
        strings = _written(rules, "string")
        if {"min_len", "min_bytes", "len", "len_bytes"} & strings or _FORMATS & strings:
            return True
        if "pattern" in strings:
            return _refuses_nothing(rules.string.pattern)
        numbers = rules.WhichOneof("type")
        if numbers in ("int32", "int64", "uint32", "uint64"):
            bounds = getattr(rules, numbers)
            lower = _written(rules, numbers)
            return ("gt" in lower and bounds.gt >= 0) or ("gte" in lower and bounds.gte > 0)
        return bool(field.is_repeated and rules.repeated.min_items)

    def of_field(self, field: pb.FieldDescriptor) -> dict[str, Any]:
        """All rules of a field by name, such as "string.max_len"; see `rules_by_name`."""
        return rules_by_name(self._rules(field))

    def of_message(self, message: pb.Descriptor) -> dict[str, Any]:
        """All rules of a message as a whole, and of its oneofs."""
        found = rules_by_name(self._stated("message", message))
        for oneof in message.oneofs:
            found |= rules_by_name(self._stated("oneof", oneof), f"{oneof.name}.")
        return found

    def _rules(self, field: pb.FieldDescriptor) -> Any:
        """The rules written at a field; None if there are none."""
        return self._stated("field", field)

    def _stated(self, kind: str, descriptor: Any) -> Any:
        if kind not in self._extensions:
            return None
        extension, options = self._extensions[kind]
        found = options.FromString(descriptor.GetOptions().SerializeToString())
        return found.Extensions[extension] if found.HasExtension(extension) else None


def rules_by_name(rules: Any, prefix: str = "") -> dict[str, Any]:
    """What rules say, flat: "repeated.items.string.max_len" -> 200. Nothing where they are off.

    A set for a list of values, seconds for a duration; `lt` and `gt` are told as the `lte` and
    `gte` that mean the same, and an expression of CEL by its id.
    """
    found: dict[str, Any] = {}
    if rules is None or _ignored(rules, "IGNORE_ALWAYS"):
        return found
    for field, value in rules.ListFields():
        name = f"{prefix}{field.name}"
        if field.name in ("cel", "cel_expression"):
            for rule in value:
                text = rule if isinstance(rule, str) else rule.expression
                found[f"{prefix}cel {getattr(rule, 'id', '') or text}"] = text
        elif field.is_repeated:
            if field.name != "example":
                found[name] = frozenset(map(_plain, value))
        elif field.message_type is not None and not hasattr(value, "nanos"):
            found |= rules_by_name(value, f"{name}.")
        elif field.name in _EXCLUSIVE:
            found[f"{name}e"] = _next(_plain(value), _EXCLUSIVE[field.name])
        elif value is not False and field.name != "ignore" and (value or field.name[:4] != "min_"):
            found[name] = _plain(value)
    if found and _ignored(rules, "IGNORE_IF_ZERO_VALUE"):
        found[f"{prefix}ignore"] = "if empty"
    return found


def _ignored(rules: Any, when: str) -> bool:
    ignore = rules.DESCRIPTOR.fields_by_name.get("ignore")
    if ignore is None or ignore.enum_type is None:
        return False
    value = ignore.enum_type.values_by_name.get(when)
    return value is not None and rules.ignore == value.number


def _next(bound: float, step: int) -> float:
    """The number beside an exclusive bound that is allowed."""
    return bound + step if isinstance(bound, int) else math.nextafter(bound, step * math.inf)


def _plain(value: Any) -> Any:
    if hasattr(value, "nanos"):
        return duration_seconds(value)
    return str(value) if isinstance(value, Message) else value


def _known(extension: pb.FieldDescriptor) -> bool:
    """Whether it is protovalidate's, of a version that can be read here."""
    rules = extension.message_type
    return rules is not None and "type" in rules.oneofs_by_name and "ignore" in rules.fields_by_name


def _written(rules: Any, kind: str) -> frozenset[str]:
    """Names of the rules of one kind, e.g. those in `string`."""
    if rules is None or rules.WhichOneof("type") != kind:
        return frozenset()
    return frozenset(found.name for found, _ in getattr(rules, kind).ListFields())


def _finite(field: pb.FieldDescriptor, rules: Any, kind: str) -> bool:
    """Whether the elements of a list, or the keys of a map, have only so many values."""
    if field.type == pb.FieldDescriptor.TYPE_BOOL:
        return True
    if field.enum_type is not None and field.enum_type.is_closed:
        return True
    name = "items" if kind == "repeated" else "keys"
    if name not in _written(rules, kind):
        return False
    inner = getattr(getattr(rules, kind), name)
    written = _written(inner, inner.WhichOneof("type") or "")
    return "in" in written or ("defined_only" in written and inner.enum.defined_only)


def _scalar(field: pb.FieldDescriptor, rules: Any) -> str | None:
    if field.type == pb.FieldDescriptor.TYPE_STRING:
        strings = _written(rules, "string")
        if (_STRING_BOUNDS | _SHORT_FORMATS) & strings:
            return None
        if "pattern" in strings and _ends(rules.string.pattern):
            return None
        return "string.max_len = 200"
    if field.type == pb.FieldDescriptor.TYPE_BYTES:
        return None if _BYTES_BOUNDS & _written(rules, "bytes") else "bytes.max_len = 1024"
    return None


def _ends(pattern: str) -> bool:
    """Whether what matches an anchored pattern has a longest form."""
    whole = pattern.startswith("^") and pattern.endswith("$")
    return whole and not _ENDLESS.search(_CLASSES.sub("x", pattern))


def _refuses_nothing(pattern: str) -> bool:
    """Whether the empty string does not match; False if Python cannot read the pattern."""
    try:
        return re.search(_CLASSES.sub("x", pattern), "") is None
    except re.error:
        return False
