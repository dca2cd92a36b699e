"""Below ``run/`` no function takes a whole recipe; import-linter holds the layers themselves."""

import ast
from pathlib import Path

import herdlm

SOURCE = Path(herdlm.__file__).parent
MAY_SEE_THE_RECIPE = ("cli", "run")


def mentions_recipe(annotation: ast.expr | None) -> bool:
    return annotation is not None and any(
        (isinstance(node, ast.Name) and node.id == "Recipe")
        or (isinstance(node, ast.Attribute) and node.attr == "Recipe")
        or (isinstance(node, ast.Constant) and isinstance(node.value, str) and "Recipe" in node.value)
        for node in ast.walk(annotation)
    )


def takes_recipe(tree: ast.Module) -> list[str]:
    """Functions with a parameter, and classes with a field, of the type Recipe."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
            if any(mentions_recipe(argument.annotation) for argument in arguments):
                found.append(node.name)
        elif isinstance(node, ast.ClassDef):
            fields = [part for part in node.body if isinstance(part, ast.AnnAssign)]
            if any(mentions_recipe(field.annotation) for field in fields):
                found.append(node.name)
    return found


def test_only_the_stage_engine_and_the_command_line_see_the_whole_recipe():
    seen = {}
    for path in sorted(SOURCE.rglob("*.py")):
        name = path.relative_to(SOURCE)
        if name.parts[0] not in MAY_SEE_THE_RECIPE and (found := takes_recipe(ast.parse(path.read_text("utf-8")))):
            seen[str(name)] = found
    assert seen == {}


def test_the_check_finds_what_it_looks_for():
    assert takes_recipe(ast.parse("def f(a, *, r: Recipe | None = None): ...")) == ["f"]
    assert takes_recipe(ast.parse("class Context:\n    recipe: 'Recipe'")) == ["Context"]
    execute = ast.parse((SOURCE / "run" / "execute.py").read_text("utf-8"))
    assert "run" in takes_recipe(execute)
