"""What a query may ask for, judged before it is validated, and so before anything is called.

A document is walked once: what a fragment costs is worked out once, however often it is spread, so
that fragments which spread each other twice cost no more than their text. Cycles are left to
validation.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple, cast

from graphql import (
    DocumentNode,
    FieldNode,
    FragmentDefinitionNode,
    FragmentSpreadNode,
    GraphQLError,
    InlineFragmentNode,
    IntValueNode,
    ListValueNode,
    OperationDefinitionNode,
    SelectionNode,
    SelectionSetNode,
    VariableNode,
)
from strawberry.extensions import SchemaExtension

from services.edge.graphql.request import MOST

MAX_TOKENS: Final = 2000
"""Names, numbers, brackets ... of a document."""

MAX_DEPTH: Final = 10
"""Fields within fields."""

MAX_ALIASES: Final = 30
"""Fields under another name, and fields that are named again beside themselves."""

MAX_FRAGMENTS: Final = 50
"""Spreads of fragments, inline ones included: validation compares each with each."""

MAX_COST: Final = 50_000
"""Values that an answer may have at the most: fields, times the length of the lists they are in."""

SIZED_BY: Final = {"orders": "first", "products": "skus", "_entities": "representations"}
"""Field -> the argument that says how long its list is, at most `MOST`."""

SIZES: Final = {"orders": 20, "items": 100}
"""Field -> how long its list is, at most, if no argument says it."""

HIDDEN: Final = ("__schema", "__type", "_service")
"""Fields that tell of the schema."""


class TooMuch(GraphQLError):
    """A document asks for more than it may."""


class Limits(SchemaExtension):
    """Refuses a document that asks for too much."""

    hidden: tuple[str, ...] = HIDDEN

    def on_operation(self) -> Iterator[None]:
        """Bound the parser."""
        self.execution_context.parse_options["max_tokens"] = MAX_TOKENS
        yield

    def on_validate(self) -> Iterator[None]:
        """Judge the document; what is refused is not validated."""
        context = self.execution_context
        assert context.graphql_document is not None
        walk = _Walk(context.graphql_document, context.variables or {}, self.hidden)
        try:
            walk.judge(named=context._provided_operation_name is not None)
        except TooMuch as error:
            context.pre_execution_errors = [error]
        yield


class OpenLimits(Limits):
    """The same, for development: the schema may be asked for."""

    hidden = ()


class _Size(NamedTuple):
    depth: int
    cost: int


class _Walk:
    """What a document asks for."""

    def __init__(
        self, document: DocumentNode, variables: Mapping[str, Any], hidden: tuple[str, ...]
    ) -> None:
        self._definitions = document.definitions
        self._variables = variables
        self._hidden = hidden
        self._aliases = self._spreads = 0
        self._sizes: dict[str, _Size] = {}
        self._fragments = {
            each.name.value: each
            for each in document.definitions
            if isinstance(each, FragmentDefinitionNode)
        }

    def judge(self, *, named: bool) -> None:
        """Raises TooMuch if it asks for too much; `named`: whether it is said which operation."""
        found = [each for each in self._definitions if isinstance(each, OperationDefinitionNode)]
        if len(found) > 1 and not named:
            raise TooMuch("operationName must say which operation")
        for each in found:
            try:
                size = self._of(each.selection_set)
            except RecursionError:
                raise TooMuch("the query is nested too deeply") from None
            if size.depth > MAX_DEPTH:
                raise TooMuch(f"the query is {size.depth} fields deep, {MAX_DEPTH} are allowed")
            if size.cost > MAX_COST:
                text = f"the answer may have {size.cost} values, {MAX_COST} are allowed"
                raise TooMuch(f"{text}: ask for shorter lists or fewer fields")

    def _of(self, selected: SelectionSetNode | None) -> _Size:
        depth = cost = 0
        names: set[str] = set()
        for each in selected.selections if selected else ():
            if isinstance(each, FieldNode):
                name = (each.alias or each.name).value
                self._count(again=each.alias is not None or name in names)
                names.add(name)
                if each.name.value in self._hidden:
                    raise TooMuch(f"{each.name.value} is for development")
                if each.name.value in HIDDEN:
                    continue
                inner = self._of(each.selection_set)
                found = _Size(inner.depth + 1, 1 + self._length(each) * inner.cost)
            else:
                found = self._fragment(each)
            depth, cost = max(depth, found.depth), cost + found.cost
        return _Size(depth, cost)

    def _count(self, *, again: bool) -> None:
        self._aliases += again
        if self._aliases > MAX_ALIASES:
            raise TooMuch(f"more than {MAX_ALIASES} fields are aliases or repeated")

    def _fragment(self, node: SelectionNode) -> _Size:
        self._spreads += 1
        if self._spreads > MAX_FRAGMENTS:
            raise TooMuch(f"more than {MAX_FRAGMENTS} fragments are spread")
        if not isinstance(node, FragmentSpreadNode):
            return self._of(cast("InlineFragmentNode", node).selection_set)
        name = node.name.value
        if name not in self._sizes:
            self._sizes[name] = _Size(0, 0)  # until it is known: validation refuses a cycle
            if name in self._fragments:
                self._sizes[name] = self._of(self._fragments[name].selection_set)
        return self._sizes[name]

    def _length(self, field: FieldNode) -> int:
        """How long the list of a field may be; 1 for what is none."""
        name = field.name.value
        length = SIZES.get(name, 1)
        for argument in field.arguments or ():
            if argument.name.value == SIZED_BY.get(name):
                length = self._value(argument.value, length)
        if length > MOST:
            raise TooMuch(f"{name}: at most {MOST} can be asked for at a time")
        return max(0, length)

    def _value(self, node: object, default: int) -> int:
        if isinstance(node, ListValueNode):
            return len(node.values)
        if isinstance(node, IntValueNode):
            return int(node.value) if len(node.value) < 10 else MOST + 1
        if isinstance(node, VariableNode):
            value = self._variables.get(node.name.value, ...)
            if isinstance(value, list):
                return len(value)
            if isinstance(value, int):
                return value
            return MOST if value is ... else default  # its default, which may be as much
        return default
