"""From a module's source to its mutants, each with one small change. Pure.

Changed are conditions (a comparison's edge or sense, one half of an `and` or `or`, the negation of a test),
constants in functions, results, and effects (statements removed or swapped with the next, `with` blocks
unwrapped). Logs, metrics, messages and annotations stay as they are: nothing is decided there.
"""

import ast
import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

_Change = Callable[[ast.AST], None]
_FLIPS: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}
_OPPOSITES = {"min": "max", "max": "min"}
_EDGES = (ast.Lt, ast.LtE, ast.Gt, ast.GtE)
_SILENT = frozenset({"_log", "_logger", "LOADS", "LOAD_SECONDS", "DAMAGED", "COPIED_BYTES", "metrics"})
_Functions = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True, slots=True)
class Mutant:
    """One change. `source` is the whole module, in the form `normalized` gives."""

    line: int
    what: str
    source: str


def normalized(source: str) -> str:
    """Return the source as mutants are written: without comments, each statement on one line."""
    return ast.unparse(ast.parse(source))


def mutants(source: str) -> Iterator[Mutant]:
    """Yield every mutant of a module, in the order of its lines."""
    tree = ast.parse(source)
    found = []
    for number, node in enumerate(_deciding_nodes(tree)):
        for what, change in _changes(node):
            mutated = copy.deepcopy(tree)
            change(_deciding_nodes(mutated)[number])
            found.append(
                Mutant(getattr(node, "lineno", 0), what, ast.unparse(ast.fix_missing_locations(mutated)))
            )
    yield from sorted(found, key=lambda mutant: mutant.line)


def _deciding_nodes(tree: ast.Module) -> list[ast.AST]:
    """Return the nodes in functions, in an order that is the same for equal trees."""
    nodes: list[ast.AST] = []

    def visit(node: ast.AST, *, in_function: bool) -> None:
        if isinstance(node, ast.Expr) and (_is_docstring(node) or _is_silent(node.value)):
            return
        if isinstance(node, ast.Raise | ast.Assert | ast.JoinedStr):
            if in_function:
                nodes.append(node)
            return
        if in_function or isinstance(node, _Functions):
            nodes.append(node)
        for name, value in ast.iter_fields(node):
            if name in {"annotation", "returns", "decorator_list", "args"} and isinstance(
                node, _Functions | ast.arg | ast.AnnAssign
            ):
                continue
            for child in value if isinstance(value, list) else [value]:
                if isinstance(child, ast.AST):
                    visit(child, in_function=in_function or isinstance(node, _Functions))

    visit(tree, in_function=False)
    return nodes


def _changes(node: ast.AST) -> Iterator[tuple[str, _Change]]:
    yield from _condition_changes(node)
    yield from _value_changes(node)
    for field in ("body", "orelse", "finalbody"):
        block = getattr(node, field, None)
        if isinstance(block, list) and getattr(node, "name", "") != "__init__":
            yield from _block_changes(block, field)


def _condition_changes(node: ast.AST) -> Iterator[tuple[str, _Change]]:
    if isinstance(node, ast.Compare):
        for index, operator in enumerate(node.ops):
            yield "comparison", _replace("ops", index, [_FLIPS[type(operator)]()])
    if isinstance(node, ast.BoolOp):
        for index in range(len(node.values)):
            yield "half dropped", _replace("values", index, [])
    if isinstance(node, ast.If | ast.While | ast.IfExp) and not _is_flipped_anyway(node.test):
        yield "negated", _set("test", ast.UnaryOp(ast.Not(), node.test))


def _value_changes(node: ast.AST) -> Iterator[tuple[str, _Change]]:
    if isinstance(node, ast.Constant):
        yield from _constant_changes(node.value)
    if isinstance(node, ast.Name) and node.id in _OPPOSITES:
        yield "min and max", _set("id", _OPPOSITES[node.id])
    if isinstance(node, ast.Return) and not (node.value is None or _is_falsy(node.value)):
        yield "returns None", _set("value", ast.Constant(None))


def _constant_changes(value: object) -> Iterator[tuple[str, _Change]]:
    if isinstance(value, bool):
        yield "constant", _set("value", not value)
    elif isinstance(value, int | float):
        yield "constant", _set("value", value + 1)
        if value:
            yield "constant", _set("value", value - 1)


def _block_changes(block: list[ast.stmt], field: str) -> Iterator[tuple[str, _Change]]:
    for index, statement in enumerate(block):
        if _has_effect(statement):
            yield "removed", _replace(field, index, [] if len(block) > 1 else [ast.Pass()])
            if index + 1 < len(block) and _order_matters(statement, block[index + 1]):
                yield "swapped", _replace(field, index, [block[index + 1], statement], count=2)
        if isinstance(statement, ast.With | ast.AsyncWith) and not any(
            item.optional_vars for item in statement.items
        ):
            yield "unwrapped", _replace(field, index, statement.body)


def _set(field: str, value: object) -> _Change:
    return lambda node: setattr(node, field, copy.deepcopy(value))


def _replace(field: str, index: int, items: Sequence[ast.AST], *, count: int = 1) -> _Change:
    def change(node: ast.AST) -> None:
        getattr(node, field)[index : index + count] = copy.deepcopy(list(items))

    return change


def _has_effect(statement: ast.stmt) -> bool:
    """Whether a statement changes something other than a local name, which its readers would miss."""
    if isinstance(statement, ast.Expr):
        return (
            not _is_docstring(statement)
            and not _is_silent(statement.value)
            and not isinstance(statement.value, ast.Yield)
        )
    if isinstance(statement, ast.Assign):
        return all(
            isinstance(target, ast.Attribute | ast.Subscript | ast.Tuple) for target in statement.targets
        )
    if isinstance(statement, ast.AugAssign):
        return True
    return isinstance(statement, ast.Delete | ast.Raise | ast.Continue | ast.Break)


def _order_matters(first: ast.stmt, second: ast.stmt) -> bool:
    """Whether two statements may be noticed in the wrong order: not where both only set attributes."""
    calls = [isinstance(node, ast.Call) for node in (*ast.walk(first), *ast.walk(second))]
    return _has_effect(first) and _has_effect(second) and any(calls)


def _is_flipped_anyway(test: ast.expr) -> bool:
    return isinstance(test, ast.Compare) and len(test.ops) == 1 and not isinstance(test.ops[0], _EDGES)


def _is_docstring(node: ast.Expr) -> bool:
    return isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def _is_silent(value: ast.expr) -> bool:
    """Whether an expression logs or counts."""
    while isinstance(value, ast.Call | ast.Attribute):
        value = value.func if isinstance(value, ast.Call) else value.value
    return isinstance(value, ast.Name) and value.id in _SILENT


def _is_falsy(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and not node.value
