"""The sizes that keep the tree readable, and the one sentence that every package and every large file owes its reader.

The bounds are a smoke alarm, not a goal: a function or class that trips one is usually two ideas. Cutting one object in
two, by inheritance or by passing `self` around, silences the alarm and leaves the fire.
"""

import ast
import re
from functools import cache
from pathlib import Path
from statistics import median, quantiles

ROOT = Path(__file__).parents[2] / "sidecar"
FILES = sorted(path for path in ROOT.rglob("*.py") if "demo" not in path.parts)
FUNCTION_LINES = 50
CLASS_METHODS = 20
CONSTRUCTOR_PARAMETERS = 8
FILE_LINES = 300
LARGEST_FILE = 450
PACKAGES = sorted(path.parent for path in FILES if path.name == "__init__.py" and path.parent != ROOT)
Function = ast.FunctionDef | ast.AsyncFunctionDef


@cache
def tree(path: Path) -> ast.Module:
    """Parsed when a test asks: a worker that collects these tests need not run them."""
    return ast.parse(path.read_text())


@cache
def functions_and_classes() -> tuple[list[tuple[Path, Function]], list[tuple[Path, ast.ClassDef]]]:
    functions: list[tuple[Path, Function]] = []
    classes: list[tuple[Path, ast.ClassDef]] = []
    for path in FILES:
        name = path.relative_to(ROOT.parent)
        for node in ast.walk(tree(path)):
            if isinstance(node, Function):
                functions.append((name, node))
            elif isinstance(node, ast.ClassDef):
                classes.append((name, node))
    return functions, classes


def length(function: Function) -> int:
    """Lines from `def` to the end, decorators and the docstring left out."""
    body = function.body
    docstring = ast.get_docstring(function, clean=False) is not None
    taken = (body[0].end_lineno or 0) - body[0].lineno + 1 if docstring else 0
    return (function.end_lineno or 0) - function.lineno + 1 - taken


def is_dataclass(node: ast.ClassDef) -> bool:
    return any("dataclass" in ast.unparse(decorator) for decorator in node.decorator_list)


def test_functions_are_short() -> None:
    """Median at most 7 lines, nine of ten at most 18, none above 50."""
    functions, _ = functions_and_classes()
    lengths = [length(node) for _, node in functions]
    longest = [f"{path}:{node.name} {length(node)}" for path, node in functions if length(node) > FUNCTION_LINES]
    assert not longest
    assert median(lengths) <= 7
    assert quantiles(lengths, n=10)[-1] <= 18


def test_classes_have_few_methods() -> None:
    """At most 20 of their own. A contract that others implement counts, too."""
    _, classes = functions_and_classes()
    counted = {f"{path}:{node.name}": sum(isinstance(child, Function) for child in node.body) for path, node in classes}
    assert {name: count for name, count in counted.items() if count > CLASS_METHODS} == {}


def test_constructors_have_few_parameters() -> None:
    """At most 8, but for dataclasses, whose fields are the values that they are made of."""
    _, classes = functions_and_classes()
    found = {}
    for path, node in classes:
        for child in node.body:
            if isinstance(child, ast.FunctionDef) and child.name == "__init__" and not is_dataclass(node):
                found[f"{path}:{node.name}"] = len(child.args.args) + len(child.args.kwonlyargs) - 1
    assert {name: count for name, count in found.items() if count > CONSTRUCTOR_PARAMETERS} == {}


def test_large_files_say_why_they_are_one_idea() -> None:
    """Above 300 lines the module's docstring has a paragraph that begins with `One idea` or `One file`; none has more than 450 lines."""
    lines = {path: path.read_text().count("\n") for path in FILES}
    assert [path for path in FILES if lines[path] > LARGEST_FILE] == []
    large = [path for path in FILES if lines[path] > FILE_LINES]
    said = re.compile(r"^One (idea|file)\b", re.MULTILINE)
    assert [path for path in large if not said.search(ast.get_docstring(tree(path)) or "")] == []


def test_packages_say_in_one_sentence_what_they_are() -> None:
    docstrings = {package: ast.get_docstring(tree(package / "__init__.py")) or "" for package in PACKAGES}
    first = {package: docstring.split("\n\n")[0] for package, docstring in docstrings.items()}
    assert {package: text for package, text in first.items() if not text.endswith(".") or ". " in text} == {}


def test_no_class_inherits_from_a_concrete_class_of_ours() -> None:
    """Contracts, exceptions and enumerations are inherited from; objects are composed."""
    _, classes = functions_and_classes()
    ours = {node.name: node for _, node in classes}

    def is_contract(name: str) -> bool:
        node = ours[name]
        bases = {ast.unparse(base).partition("[")[0] for base in node.bases}
        return bool(bases & {"Protocol", "ABC", "Exception", "StrEnum", "Enum", "BaseModel"}) or any(
            is_contract(base) for base in bases if base in ours
        )

    allowed = {"Decorated"}  # a store around a store: its subclasses differ in one method
    clicks = {"Command"}  # of click; a command of the package has that name, too
    found = {
        f"{path}:{node.name}({base})"
        for path, node in classes
        for base in (ast.unparse(each).partition("[")[0] for each in node.bases)
        if base in ours and base not in allowed | clicks and not is_contract(base)
    }
    assert found == set()
