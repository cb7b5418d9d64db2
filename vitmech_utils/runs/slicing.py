"""A program's backward slice: the statements that what is kept depends on, and none of those that only show it.

Statements are those at the top level, imports taken apart by name. A statement belongs to the slice of another when it
writes, or may change, a name that the other reads. Python does not say which calls change what they are given; the
rules in `_changed_by` do, and take in a statement too many rather than one too few.
"""

import ast
import copy
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

STATE = "<state>"
"""Stands for what a program changes without naming it: random generators, options, the environment."""
_ARGUMENT = "argument "
_LOOKS_AT_NAMES = {"exec", "eval", "globals", "locals", "get_ipython", "__import__"}
_CHANGING = {
    "add", "append", "clear", "delattr", "discard", "eval", "extend", "fill", "insert", "load_state_dict",
    "manual_seed", "next", "partition", "pop", "popitem", "put", "remove", "resize", "reverse", "seed", "setattr",
    "setdefault", "setflags", "shuffle", "sort", "train", "update",
}  # fmt: skip
_GENERATORS = {"Generator", "RandomState", "Random", "default_rng", "generator", "iter", "open"}
_SHOWING = {"IPython", "matplotlib", "pandas", "warnings"}
_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)
_COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)


def computing_statements(
    source: str, is_root: Callable[[ast.stmt], bool], shows: Callable[[str], bool]
) -> list[ast.stmt]:
    """The statements of a program that its roots depend on, the roots among them, in order and without docstrings.

    `shows` says by its dotted path which module draws and prints, and so changes nothing that it is given. A program
    that looks at its own names (`exec`, `globals`, a star import) is taken whole. Raises `SyntaxError`.
    """
    parts = [part for statement in ast.parse(source).body for part in _apart(statement)]
    facts = [_Facts(part) for part in parts]
    if not any(fact.looks_at_names for fact in facts):
        _follow_calls(facts, shows)
        found = _slice(facts, [place for place, part in enumerate(parts) if is_root(part)])
        parts = [part for place, part in enumerate(parts) if place in found]
    return [_undocumented(part) for part in parts]


def _apart(statement: ast.stmt) -> list[ast.stmt]:
    if not isinstance(statement, ast.Import | ast.ImportFrom):
        return [statement]
    parts = [copy.copy(statement) for _ in statement.names]
    for part, alias in zip(parts, statement.names, strict=True):
        part.names = [alias]
    return parts


def _undocumented(statement: ast.stmt) -> ast.stmt:
    statement = copy.deepcopy(statement)
    for node in ast.walk(statement):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and ast.get_docstring(
            node
        ):
            node.body = node.body[1:] or [ast.Pass()]
    return statement


def _slice(facts: list["_Facts"], roots: list[int]) -> set[int]:
    found, seen = set(roots), set()
    same = _aliases(facts)
    wanted = [
        (name, root, root)
        for root in roots
        for name in (*(facts[root].reads - facts[root].placed_in), *facts[root].later, STATE)
    ]
    while wanted:
        name, before, root = wanted.pop()
        if (name, before, root) in seen:
            continue
        seen.add((name, before, root))
        for place in range(before - 1, -1, -1):
            fact = facts[place]
            if name in fact.writes or fact.changes & same(name):
                found.add(place)
                wanted += [(read, place, root) for read in fact.reads]
                wanted += [
                    (read, root, root) for read in fact.later
                ]  # read when it is called, by then at the latest
            if name in fact.binds:
                break
    return found


def _aliases(facts: list["_Facts"]) -> Callable[[str], set[str]]:
    """Which names may stand for the same object as a name, or for a part of it."""
    neighbours: dict[str, set[str]] = {}
    for one, other in (pair for fact in facts for pair in fact.aliases):
        neighbours.setdefault(one, set()).add(other)
        neighbours.setdefault(other, set()).add(one)
    known: dict[str, set[str]] = {}

    def same(name: str) -> set[str]:
        if name not in known:
            known[name], wanted = {name}, [name]
            while wanted:
                new = neighbours.get(wanted.pop(), set()) - known[name]
                known[name] |= new
                wanted += new
        return known[name]

    return same


def _follow_calls(facts: list["_Facts"], shows: Callable[[str], bool]) -> None:
    """Add to what each statement changes what the calls in it may change, the program's own functions followed."""
    names = _Names(
        modules={name: module for fact in facts for name, module in fact.modules.items()},
        functions={
            name: fact for fact in facts if fact.later_calls or fact.is_function for name in fact.writes
        },
        generators={name for fact in facts if fact.makes_generator for name in fact.writes},
        handles={name for fact in facts if fact.opens_chapter for name in fact.writes},
        shows=shows,
    )
    settled = False
    while not settled:
        settled = True
        for fact in facts:
            for call in fact.calls:
                settled &= _grow(fact.changes, _changed_by(call, names))
            for call in fact.later_calls:
                settled &= _grow(fact.changes_later, _changed_by(call, names))
            if not fact.is_function:  # a lambda may be called on the spot
                _grow(fact.changes, fact.changes_later)


def _grow(known: set[str], more: set[str]) -> bool:
    size = len(known)
    known |= more
    return len(known) == size


@dataclass
class _Names:
    """What the names of a program stand for."""

    modules: dict[str, str]
    functions: dict[str, "_Facts"]
    generators: set[str]
    handles: set[str]
    shows: Callable[[str], bool]


@dataclass(frozen=True)
class _Call:
    """A call: the name at the root of what is called, its last name, what it is given, whether its result is used.

    `of_result` where it is a method of what another call gave, as in `load(path).eval()`.
    """

    root: str | None
    last: str
    is_method: bool
    of_result: bool
    given: frozenset[str]
    unused: bool


def _changed_by(call: _Call, names: _Names) -> set[str]:
    module = names.modules.get(call.root or "")
    changing = call.last in _CHANGING or (call.last.endswith("_") and not call.last.startswith("_"))
    own = {call.root} if call.root else set()
    found: set[str] = {name for name in {*own, *call.given} if name in names.generators or "rng" in name}
    function = None if call.is_method else names.functions.get(call.root or "")
    if function:
        found |= {name for name in function.changes_later if not name.startswith(_ARGUMENT)}
        if any(name.startswith(_ARGUMENT) for name in function.changes_later):
            found |= call.given
    elif module is not None and call.of_result:
        pass  # a new object, which has no name
    elif module is not None:
        silent = names.shows(module) or module.partition(".")[0] in _SHOWING
        if changing or call.last.startswith("fine_tune") or (call.unused and not silent):
            found |= {*call.given, STATE}
    elif call.is_method:
        if changing or call.unused:
            found |= own
    elif changing:
        found |= call.given
    return found - names.handles


class _Facts(ast.NodeVisitor):
    """What a statement reads at once, what the functions in it read later, what it writes and may change."""

    def __init__(self, statement: ast.stmt) -> None:
        self.reads: set[str] = set()
        self.later: set[str] = set()
        self.writes: set[str] = set()
        self.binds: set[str] = set()
        self.changes: set[str] = set()
        self.changes_later: set[str] = set()
        self.calls: list[_Call] = []
        self.later_calls: list[_Call] = []
        self.aliases: set[tuple[str, str]] = set()
        self.modules: dict[str, str] = {}
        self.looks_at_names = False
        self.placed_in: set[str] = set()
        self.is_function = isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
        self._scopes: list[dict[str, str | None]] = []
        self._deferred = 0
        self._unused: set[int] = set()
        value = statement.value if isinstance(statement, ast.Assign) else None
        made_by = _last(value.func) if isinstance(value, ast.Call) else ""
        self.makes_generator, self.opens_chapter = made_by in _GENERATORS, made_by == "open_chapter"
        self.visit(statement)
        if isinstance(statement, ast.Assign):
            self.placed_in = _placed_in(statement)
        if (
            isinstance(statement, ast.Assign | ast.AnnAssign | ast.Import | ast.ImportFrom)
            or self.is_function
        ):
            self.binds = set(self.writes)

    def visit_Name(self, node: ast.Name) -> None:
        name = self._resolve(node.id)
        if name is None or name.startswith(_ARGUMENT):
            return
        if not isinstance(node.ctx, ast.Load):
            self._write(node.id)
            return
        self.looks_at_names |= node.id in _LOOKS_AT_NAMES
        (self.later if self._deferred else self.reads).add(name)

    def visit_Attribute(self, node: ast.Attribute) -> None:
        self._store(node)

    def visit_Subscript(self, node: ast.Subscript) -> None:
        self._store(node)

    def visit_AugAssign(self, node: ast.AugAssign) -> None:
        if isinstance(node.target, ast.Name):
            self.visit(ast.Name(node.target.id, ast.Load()))
            self._change(node.target)
        self.generic_visit(node)

    def visit_Expr(self, node: ast.Expr) -> None:
        self._unused.add(id(node.value))
        self.generic_visit(node)

    def visit_Assign(self, node: ast.Assign) -> None:
        if all(isinstance(target, ast.Name) and target.id == "_" for target in node.targets):
            self._unused.add(id(node.value))
        for target in node.targets:
            self._alias(target, node.value)
        self.generic_visit(node)

    def visit_For(self, node: ast.For) -> None:
        self._alias(node.target, node.iter)
        self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> None:
        given = [*node.args, *(keyword.value for keyword in node.keywords)]
        root = _root(node.func)
        self.looks_at_names |= root == "vars" and not given
        call = _Call(
            root=self._resolve(root) if root else None,
            last=_last(node.func),
            is_method=isinstance(node.func, ast.Attribute),
            of_result=any(isinstance(part, ast.Call) for part in _chain(node.func)),
            given=frozenset(filter(None, (self._resolve(name) for part in given for name in _roots(part)))),
            unused=id(node) in self._unused,
        )
        (self.later_calls if self._deferred else self.calls).append(call)
        self.generic_visit(node)

    def visit_Import(self, node: ast.Import) -> None:
        for alias in node.names:
            self._write(alias.asname or alias.name.partition(".")[0])
            self.modules[alias.asname or alias.name.partition(".")[0]] = alias.name

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        for alias in node.names:
            self.looks_at_names |= alias.name == "*"
            self._write(alias.asname or alias.name)
            self.modules[alias.asname or alias.name] = f"{node.module or ''}.{alias.name}"

    def visit_ExceptHandler(self, node: ast.ExceptHandler) -> None:
        if node.name:
            self._write(node.name)
        self.generic_visit(node)

    def visit_MatchAs(self, node: ast.MatchAs) -> None:
        if node.name:
            self._write(node.name)
        self.generic_visit(node)

    def visit_MatchStar(self, node: ast.MatchStar) -> None:
        if node.name:
            self._write(node.name)

    def visit_FunctionDef(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        self._write(node.name)
        for part in (*node.decorator_list, node.returns):
            if part is not None:
                self.visit(part)
        self._function(node.args, node.body)

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> None:
        self.visit_FunctionDef(node)

    def visit_Lambda(self, node: ast.Lambda) -> None:
        self._function(node.args, [node.body])

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        self._write(node.name)
        for part in (*node.decorator_list, *node.bases, *(keyword.value for keyword in node.keywords)):
            self.visit(part)
        bound = {name for part in node.body for name in _bound(part)}
        methods = {part.name for part in node.body if isinstance(part, ast.FunctionDef)}
        self._within(dict.fromkeys(bound - methods), node.body)

    def visit(self, node: ast.AST) -> None:
        """Visit a node; comprehensions of every kind are one kind here."""
        if isinstance(node, _COMPREHENSIONS):
            self._comprehension(node)
        else:
            super().visit(node)

    def _comprehension(self, node: ast.expr) -> None:
        bound = {name for part in node.generators for name in _bound(part.target)}
        self._scopes.append(dict.fromkeys(bound))
        self.generic_visit(node)
        self._scopes.pop()

    def _function(self, arguments: ast.arguments, body: Iterable[ast.AST]) -> None:
        for default in (*arguments.defaults, *filter(None, arguments.kw_defaults)):
            self.visit(default)
        given = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
        given += filter(None, (arguments.vararg, arguments.kwarg))
        body = list(body)
        shared = {
            name
            for part in body
            for node in ast.walk(part)
            if isinstance(node, ast.Global)
            for name in node.names
        }
        scope: dict[str, str | None] = {
            name: None for part in body for name in _bound(part) if name not in shared
        }
        scope |= {argument.arg: _ARGUMENT + argument.arg for argument in given}
        self._deferred += 1
        self._within(scope, body)
        self._deferred -= 1

    def _within(self, scope: dict[str, str | None], body: Iterable[ast.AST]) -> None:
        self._scopes.append(scope)
        for part in body:
            self.visit(part)
        self._scopes.pop()

    def _resolve(self, name: str) -> str | None:
        """A name at the top level, an argument of the function at hand, or None for what is local to it."""
        for scope in reversed(self._scopes):
            if name in scope:
                return scope[name]
        return name

    def _write(self, name: str) -> None:
        if self._resolve(name) != name:
            return
        if self._deferred:  # a name declared global
            self.changes_later.add(name)
        else:
            self.writes.add(name)

    def _store(self, node: ast.Attribute | ast.Subscript) -> None:
        if not isinstance(node.ctx, ast.Load):
            self._change(node)
        self.generic_visit(node)

    def _change(self, node: ast.AST) -> None:
        root = _root(node)
        name = self._resolve(root) if root else None
        if name:
            (self.changes_later if self._deferred else self.changes).add(name)

    def _alias(self, target: ast.expr, value: ast.expr) -> None:
        if self._scopes:
            return
        parts = target.elts if isinstance(target, ast.Tuple | ast.List) else [target]
        values: list[ast.expr] = [value] * len(parts)
        if isinstance(value, ast.Call) and _last(value.func) == "zip" and len(value.args) == len(parts):
            values = value.args
        elif isinstance(value, ast.Tuple) and len(value.elts) == len(parts):
            values = value.elts
        for part, whole in zip(parts, values, strict=True):
            self.aliases |= {(name, root) for name in _bound(part) for root in _roots(whole) if name != root}


def _chain(node: ast.AST) -> Iterator[ast.AST]:
    """A chain of attributes, items and calls, from its end to the name that it begins with."""
    yield node
    while isinstance(node, ast.Attribute | ast.Subscript | ast.Call | ast.Starred):
        node = node.func if isinstance(node, ast.Call) else node.value
        yield node


def _root(node: ast.AST) -> str | None:
    *_, first = _chain(node)
    return first.id if isinstance(first, ast.Name) else None


def _roots(node: ast.expr) -> Iterator[str]:
    """Names whose objects an expression may hand on: itself, parts of it, or what a display or a view collects."""
    if isinstance(node, ast.Tuple | ast.List | ast.Set):
        parts = node.elts
    elif isinstance(node, ast.Dict):
        parts = node.values
    elif isinstance(node, ast.IfExp):
        parts = [node.body, node.orelse]
    elif isinstance(node, ast.Call) and _last(node.func) in ("items", "values", "enumerate", "reversed"):
        parts = [*node.args, *([node.func.value] if isinstance(node.func, ast.Attribute) else [])]
    elif isinstance(node, ast.Attribute | ast.Subscript | ast.Starred):
        parts = [node.value]
    else:
        parts = []
        if isinstance(node, ast.Name):
            yield node.id
    for part in parts:
        yield from _roots(part)


def _placed_in(statement: ast.Assign) -> set[str]:
    """Names that an assignment reads only to put its value somewhere in them."""
    targets = {
        node.id for target in statement.targets for node in ast.walk(target) if isinstance(node, ast.Name)
    }
    return targets - {node.id for node in ast.walk(statement.value) if isinstance(node, ast.Name)}


def _last(node: ast.expr) -> str:
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else ""


def _bound(node: ast.AST) -> Iterator[str]:
    """Names that a piece of code binds in its own scope."""
    if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
        yield node.id
    elif isinstance(node, ast.Import | ast.ImportFrom):
        yield from (alias.asname or alias.name.partition(".")[0] for alias in node.names)
    elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        yield node.name
        return
    elif isinstance(node, ast.ExceptHandler | ast.MatchAs | ast.MatchStar) and node.name:
        yield node.name
    if not isinstance(node, (*_FUNCTIONS, *_COMPREHENSIONS)):
        for child in ast.iter_child_nodes(node):
            yield from _bound(child)
