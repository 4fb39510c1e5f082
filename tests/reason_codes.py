"""Every reason code the shipped packages can give, as their source shows, and what docs/reasons.toml says.

A code is the literal that goes by the name `code`: the first argument of `Reason`, of an exception or
function whose first parameter is called `code`, or a class's attribute of that name; also `late=`, the code
of a deadline, and the first of a pair (code, words) in a table. Any other call must pass on a code that was
found so: `error.code`, a `code`. No code is put together from parts: it could not be searched for.
"""

import ast
import re
import tomllib
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import loradrop

ROOT = Path(__file__).parents[1]
_SOURCES = Path(loradrop.__file__).parent
"""Of what is tested: a checkout, or what was installed from it."""
PACKAGES = ("catalog", "watcher", "worker", "api", "cli")
MEANINGS = ROOT / "docs" / "reasons.toml"

_PASSED_ON = {"code", "state", "_late"}
_CODE = re.compile(r"[a-z]+(_[a-z]+)+")


@dataclass
class Found:
    """The codes by name, with the files they are in, and the calls whose code cannot be read off."""

    codes: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    unclear: list[str] = field(default_factory=list)


def found_codes() -> Found:
    """Return every code of the shipped packages."""
    trees = {
        str(path.relative_to(_SOURCES)): ast.parse(path.read_text())
        for package in PACKAGES
        for path in sorted((_SOURCES / package).rglob("*.py"))
    }
    givers = _givers(list(trees.values()))
    found = Found()
    for file, tree in trees.items():
        for code, line in _codes(tree, givers - _others(tree, givers)):
            if code is None:
                found.unclear.append(f"{file}:{line}")
            elif code:
                found.codes[code].add(file)
    return found


def meanings() -> dict[str, dict[str, str]]:
    """Return what is said of each code."""
    return tomllib.loads(MEANINGS.read_text())


def reasons_table() -> list[tuple[str, str, str, str]]:
    """Return a row for each code: itself, its meaning, what to do, and where it comes from."""
    said, found = meanings(), found_codes().codes
    return [
        (
            f"`{code}`",
            said.get(code, {}).get("meaning", ""),
            said.get(code, {}).get("advice", ""),
            ", ".join(f"`{file}`" for file in sorted(found[code])),
        )
        for code in sorted(found)
    ]


def _givers(trees: Sequence[ast.AST]) -> set[str]:
    """Return the names of what takes a code first: `Reason`, and functions and classes of ours."""
    nodes = [node for tree in trees for node in ast.walk(tree)]
    classes = [node for node in nodes if isinstance(node, ast.ClassDef)]
    functions = [node for node in nodes if isinstance(node, ast.FunctionDef)]
    givers = {"Reason"} | {node.name for node in functions if _first_parameter(node) == "code"}
    for node in classes:
        if any(_first_parameter(own, 1) == "code" for own in _constructors(node)):
            givers.add(node.name)
    inheriting = [node for node in classes if not _constructors(node)]
    return givers | {node.name for node in inheriting if any(_name(base) in givers for base in node.bases)}


def _others(tree: ast.AST, givers: set[str]) -> set[str]:
    """Return the classes of one file that have a giver's name by chance, and take no code."""
    classes = [node for node in ast.walk(tree) if isinstance(node, ast.ClassDef) and node.name != "Reason"]
    return {
        node.name
        for node in classes
        if not any(_first_parameter(own, 1) == "code" for own in _constructors(node))
        and not any(_name(base) in givers for base in node.bases)
    }


def _constructors(node: ast.ClassDef) -> list[ast.FunctionDef]:
    return [item for item in node.body if isinstance(item, ast.FunctionDef) and item.name == "__init__"]


def _first_parameter(function: ast.FunctionDef, skip: int = 0) -> str:
    parameters = function.args.posonlyargs + function.args.args
    return parameters[skip].arg if len(parameters) > skip else ""


def _codes(tree: ast.AST, givers: set[str]) -> Iterator[tuple[str | None, int]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef):
            yield from _attributes(node)
        elif isinstance(node, ast.Dict):
            yield from _table_entries(node)
        elif isinstance(node, ast.keyword) and node.arg == "late":
            yield from _read_off(node.value)
        elif isinstance(node, ast.Call) and _name(node.func) in givers | {"super().__init__"}:
            given = _code_of(node)
            if given is not None and (_name(node.func) != "super().__init__" or _is_code(given)):
                yield from _read_off(given)


def _attributes(node: ast.ClassDef) -> Iterator[tuple[str, int]]:
    for item in node.body:
        if not isinstance(item, ast.Assign) or not isinstance(item.value, ast.Constant):
            continue
        if any(_name(target) == "code" for target in item.targets):
            yield str(item.value.value), item.lineno


def _table_entries(table: ast.Dict) -> Iterator[tuple[str, int]]:
    for value in table.values:
        if isinstance(value, ast.Tuple) and value.elts:
            first = value.elts[0]
            if isinstance(first, ast.Constant) and _CODE.fullmatch(str(first.value)):
                yield str(first.value), first.lineno


def _code_of(call: ast.Call) -> ast.expr | None:
    for keyword in call.keywords:
        if keyword.arg == "code":
            return keyword.value
    return call.args[0] if call.args else None


def _is_code(given: ast.expr) -> bool:
    """Return whether the first argument of some exception's constructor is a code, and not a sentence."""
    return isinstance(given, ast.Constant) and isinstance(given.value, str) and given.value.isidentifier()


def _read_off(given: ast.expr) -> Iterator[tuple[str | None, int]]:
    if isinstance(given, ast.Constant) and isinstance(given.value, str):
        yield given.value, given.lineno
    elif isinstance(given, ast.IfExp):
        yield from _read_off(given.body)
        yield from _read_off(given.orelse)
    elif _name(given).rpartition(".")[2] not in _PASSED_ON:
        yield None, given.lineno


def _name(node: ast.AST) -> str:
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        if isinstance(node.value, ast.Call) and _name(node.value.func) == "super":
            return f"super().{node.attr}"
        return f"{_name(node.value)}.{node.attr}"
    return ""
