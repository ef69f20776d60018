"""Programs with one mistake in them: each is a real module with one comparison, condition or name changed."""

import ast
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

COMPARISONS: Mapping[type[ast.cmpop], tuple[type[ast.cmpop], ...]] = {
    ast.Gt: (ast.GtE, ast.Lt),
    ast.GtE: (ast.Gt, ast.Lt),
    ast.Lt: (ast.LtE, ast.Gt),
    ast.LtE: (ast.Lt, ast.Gt),
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
}


def mutants(module: ModuleType, confused: Mapping[str, str]) -> Iterator[tuple[str, ModuleType]]:
    """Yield what was changed, and the module with that change; `confused` are attributes that may be taken for each other."""
    tree = ast.parse(Path(str(module.__file__)).read_text(encoding="utf-8"))
    either = {**confused, **{other: name for name, other in confused.items()}}
    for holder, field, position in list(_places(tree)):
        node = _take(holder, field, position)
        for other in _changed(node, field, either):
            _put(holder, field, position, ast.fix_missing_locations(ast.copy_location(other, node)))
            yield f"{ast.unparse(node)} -> {ast.unparse(other)}", _loaded(module.__name__, tree)
            _put(holder, field, position, node)


def _places(tree: ast.AST) -> Iterator[tuple[ast.AST, str, int | None]]:
    """Yield where each part of the program stands that does something."""
    declared = {part for each in ast.walk(tree) if isinstance(each, ast.ClassDef) for part in _declared(each)}
    for holder in (each for each in ast.walk(tree) if each not in declared):
        for field, held in ast.iter_fields(holder):
            if isinstance(held, list):
                yield from ((holder, field, position) for position, each in enumerate(held) if isinstance(each, ast.AST))
            elif isinstance(held, ast.AST):
                yield holder, field, None


def _declared(cls: ast.ClassDef) -> Iterator[ast.AST]:
    """Yield what says of which form a class is: its decorators, and its fields with their defaults."""
    for part in (*cls.decorator_list, *(each for each in cls.body if not isinstance(each, ast.FunctionDef))):
        yield from ast.walk(part)


def _take(holder: ast.AST, field: str, position: int | None) -> Any:
    held = getattr(holder, field)
    return held if position is None else held[position]


def _put(holder: ast.AST, field: str, position: int | None, node: ast.AST) -> None:
    if position is None:
        setattr(holder, field, node)
    else:
        getattr(holder, field)[position] = node


def _changed(node: ast.AST, field: str, either: Mapping[str, str]) -> Iterator[ast.expr]:
    """Yield what may stand here by mistake."""
    match node:
        case ast.Compare(left, [operator], compared):
            yield from (ast.Compare(left, [other()], compared) for other in COMPARISONS[type(operator)])
        case ast.BoolOp(operator, values):
            yield ast.BoolOp(ast.Or() if isinstance(operator, ast.And) else ast.And(), values)
            for dropped in range(len(values)):
                rest = values[:dropped] + values[dropped + 1 :]
                yield ast.BoolOp(operator, rest) if len(rest) > 1 else rest[0]
        case ast.UnaryOp(ast.Not(), operand):
            yield operand
        case ast.IfExp(test, body, orelse):
            yield ast.IfExp(test, orelse, body)
        case ast.Constant(bool(value)):
            yield ast.Constant(not value)
        case ast.Attribute(value, name, context) if name in either:
            yield ast.Attribute(value, either[name], context)
    if field in ("test", "ifs") and isinstance(node, ast.expr) and not isinstance(node, ast.UnaryOp | ast.Compare):
        yield ast.UnaryOp(ast.Not(), node)


def _loaded(name: str, tree: ast.Module) -> ModuleType:
    """Return the module that a tree is the source of; dataclasses look for it by its name."""
    module = ModuleType(f"{name}_mutant")
    sys.modules[module.__name__] = module
    try:
        exec(compile(tree, module.__name__, "exec"), vars(module))
    finally:
        del sys.modules[module.__name__]
    return module
