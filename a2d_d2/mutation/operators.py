"""Small changes of a module's source, one at a time: the mutants that its tests have to notice.

Changed are comparisons (the neighbour, as < for <=, and the opposite), arithmetic, bitwise and
boolean operators, numbers (a whole one by one up and one down, another by a tenth), True and False,
``not``, ``-`` and ``~`` (left out), and calls of the pairs in :data:`SWAPPED`. Left alone are
annotations, decorators, strings, messages of errors, and ``strict=``, which only states what holds.
"""

import ast
import copy
import difflib
import hashlib
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass

_COMPARED = {
    ast.Lt: (ast.LtE, ast.GtE),
    ast.LtE: (ast.Lt, ast.Gt),
    ast.Gt: (ast.GtE, ast.LtE),
    ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
}
_COMPUTED = {
    ast.Add: (ast.Sub,),
    ast.Sub: (ast.Add,),
    ast.Mult: (ast.Div,),
    ast.Div: (ast.Mult,),
    ast.FloorDiv: (ast.Div,),
    ast.Mod: (ast.FloorDiv,),
    ast.Pow: (ast.Mult,),
    ast.BitAnd: (ast.BitOr,),
    ast.BitOr: (ast.BitAnd,),
    ast.BitXor: (ast.BitOr,),
    ast.LShift: (ast.RShift,),
    ast.RShift: (ast.LShift,),
}
_JOINED = {ast.And: (ast.Or,), ast.Or: (ast.And,)}
_OPERATORS = _COMPARED | _COMPUTED | _JOINED
_PAIRS = (
    ("min", "max"),
    ("minimum", "maximum"),
    ("argmin", "argmax"),
    ("any", "all"),
    ("zeros", "ones"),
    ("zeros_like", "ones_like"),
)
# Functions and methods that take each other's place.
SWAPPED = {name: other for pair in _PAIRS for name, other in (pair, pair[::-1])}
# Not looked into, of any node.
_SKIPPED_FIELDS = {"annotation", "returns", "decorator_list", "type_params"}


@dataclass(frozen=True)
class Mutant:
    """One change.

    Attributes:
        id: 12 hexadecimal digits; the same as long as the statement and its function are, and the
            equal changes before it in that function.
        line: of the original source.
        function: dotted name of the function or class around it; empty at the top of the module.
        diff: changed lines, as ``ast.unparse`` writes them, with "-" and "+".
        source: of the whole mutated module.
    """

    id: str
    line: int
    function: str
    diff: str
    source: str


def mutants(source: str, path: str, names: Collection[str] = ()) -> list[Mutant]:
    """All mutants of a module, in the order of its lines.

    Args:
        source: of the module.
        path: of the module, a part of the ids.
        names: dotted names of functions, classes or assigned names at the top; only changes within
            these. Empty: the whole module.

    Raises:
        ValueError: the module has none of one of ``names``.
    """
    tree = ast.parse(source)
    places = list(_places(tree, ""))
    for name in names:
        if not any(_within(function, name) for _, function in places):
            raise ValueError(f"{path} has nothing to mutate in {name!r}")
    original = ast.unparse(tree)
    seen: Counter[str] = Counter()
    result = []
    for node, function in places:
        if names and not any(_within(function, name) for name in names):
            continue
        for change in _changes(node):
            saved = copy.copy(node.__dict__)
            node.__dict__.update(change)
            text = ast.unparse(tree)
            node.__dict__.clear()
            node.__dict__.update(saved)
            diff = _diff(original, text)
            key = f"{path}\0{function}\0{diff}"
            seen[key] += 1
            digest = hashlib.sha1(f"{key}\0{seen[key]}".encode()).hexdigest()[:12]
            result.append(Mutant(digest, node.lineno, function, diff, text + "\n"))
    return sorted(result, key=lambda mutant: mutant.line)


def _within(function: str, name: str) -> bool:
    return function == name or function.startswith(f"{name}.")


def _places(node: ast.AST, function: str) -> Iterator[tuple[ast.AST, str]]:
    """The nodes that may be changed, each with the name of the definition around it."""
    for field, value in ast.iter_fields(node):
        if field in _SKIPPED_FIELDS:
            continue
        for child in value if isinstance(value, list) else [value]:
            if not isinstance(child, ast.AST) or isinstance(child, (ast.JoinedStr, ast.Raise)):
                continue
            if isinstance(child, ast.keyword) and child.arg == "strict":
                continue
            inner = function
            if isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
                inner = f"{function}.{child.name}".lstrip(".")
            elif isinstance(child, ast.Assign) and not function:
                inner = ast.unparse(child.targets[0])
            yield child, inner
            yield from _places(child, inner)


def _changes(node: ast.AST) -> Iterator[dict]:
    """The values of fields that make a mutant of a node."""
    if isinstance(node, ast.Compare):
        for i, operator in enumerate(node.ops):
            for other in _OPERATORS[type(operator)]:
                yield {"ops": [*node.ops[:i], other(), *node.ops[i + 1 :]]}
    elif isinstance(node, (ast.BinOp, ast.BoolOp, ast.AugAssign)):
        for other in _OPERATORS.get(type(node.op), ()):
            yield {"op": other()}
    elif isinstance(node, ast.Constant):
        yield from ({"value": value} for value in _other_values(node.value))
    elif isinstance(node, ast.Name) and node.id in SWAPPED:
        yield {"id": SWAPPED[node.id]}
    elif isinstance(node, ast.Attribute) and node.attr in SWAPPED:
        yield {"attr": SWAPPED[node.attr]}
    for field, value in ast.iter_fields(node):
        if isinstance(value, ast.UnaryOp) and not isinstance(value.op, ast.UAdd):
            yield {field: value.operand}
        elif isinstance(value, list):
            for i, item in enumerate(value):
                if isinstance(item, ast.UnaryOp) and not isinstance(item.op, ast.UAdd):
                    yield {field: [*value[:i], item.operand, *value[i + 1 :]]}


def _other_values(value) -> tuple:
    if isinstance(value, bool):
        return (not value,)
    if isinstance(value, int):
        return (value + 1, value - 1)
    if isinstance(value, float):
        return (value * 1.1 if value else 0.1,)
    return ()


def _diff(before: str, after: str) -> str:
    lines = list(difflib.unified_diff(before.splitlines(), after.splitlines(), n=0, lineterm=""))
    changed = (line for line in lines[2:] if not line.startswith("@@"))
    return "\n".join(line[0] + line[1:].strip() for line in changed)
