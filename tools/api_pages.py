"""The library's reference, one page a module, read from its source: signatures, docstrings, and the
comments behind the parameters (docments)."""
import ast
import io
import re
import tokenize
from pathlib import Path

Function = ast.FunctionDef | ast.AsyncFunctionDef
Owner = ast.arg | ast.AnnAssign | ast.expr  # what a comment may stand behind


def comments_of(source: str) -> dict[int, str]:
    "The comment on each line that has one."
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    return {token.start[0]: token.string.lstrip("# ")
            for token in tokens if token.type == tokenize.COMMENT}


def arguments_of(function: Function) -> list[ast.arg]:
    "All of a function's parameters but `self`."
    given = function.args
    several = [given.vararg, *given.kwonlyargs, given.kwarg]
    found = [*given.posonlyargs, *given.args, *filter(None, several)]
    return [argument for argument in found if argument.arg not in ("self", "cls")]


def explained(
    owners: list[Owner],  # in the order in which they are written
    comments: dict[int, str],
) -> dict[Owner, str]:
    "What the comments say: one that several could own belongs to the last on its line."
    lines = {owner.end_lineno: owner for owner in owners}
    return {owner: comments[line] for line, owner in lines.items() if line in comments}


def signature(function: Function) -> str:
    "Parameters without `self`, with types and defaults, and what comes back."
    shown = ast.parse(f"def f({ast.unparse(function.args)}): ...").body[0].args
    for kind in (shown.posonlyargs, shown.args):
        if kind and kind[0].arg in ("self", "cls"): del kind[0]
    returned = f" -> {ast.unparse(function.returns)}".replace("'", "") if function.returns else ""
    return f"({ast.unparse(shown)}){returned}"


def fields(owners: list[Owner], comments: dict[int, str]) -> list[str]:
    "A list of what is known of parameters and result."
    said = []
    for owner, words in explained(owners, comments).items():
        if isinstance(owner, ast.arg): name = f"`{owner.arg}`"
        elif isinstance(owner, ast.AnnAssign): name = f"`{owner.target.id}`"
        else: name = "returns"
        said.append(f"- {name}: {words}")
    return said


def directive(
    kind: str,  # function, class, ...
    head: str,  # its name and signature
    body: list[str],
    option: str = "",
    colons: int = 4,  # more than what stands inside has
) -> str:
    "A description of one thing."
    fence, text = ":" * colons, re.sub(r"\n{3,}", "\n\n", "\n".join(body)).strip("\n")
    return f"{fence}{{py:{kind}}} {head}\n{option}\n\n{text}\n{fence}\n"


def text_of(function: Function, comments: dict[int, str]) -> list[str]:
    "What is said of a function."
    owners = [*arguments_of(function), *filter(None, [function.returns])]
    return [ast.get_docstring(function) or "", "", *fields(owners, comments)]


def described(function: Function, comments: dict[int, str]) -> str:
    "A function."
    return directive("function", function.name + signature(function), text_of(function, comments))


def method(function: Function, comments: dict[int, str]) -> str:
    "A method of a class, or a property."
    decorators = [ast.unparse(decorator) for decorator in function.decorator_list]
    body = text_of(function, comments)
    if "property" in decorators: return directive("property", function.name, body, colons=3)
    option = ":classmethod:" if "classmethod" in decorators else ""
    return directive("method", function.name + signature(function), body, option, 3)


def classed(node: ast.ClassDef, comments: dict[int, str]) -> str:
    "A class: how it is made, and its public methods."
    methods = [part for part in node.body if isinstance(part, Function)]
    makers = [part for part in methods if part.name == "__init__"]
    attributes = [part for part in node.body if isinstance(part, ast.AnnAssign)]
    if makers: owners, head = arguments_of(makers[0]), signature(makers[0])
    else: owners, head = attributes, f"({', '.join(map(ast.unparse, attributes))})"
    shown = [part for part in methods if not part.name.startswith("_")]
    body = [ast.get_docstring(node) or "", "", *fields(owners, comments), "",
            *[method(part, comments) for part in shown]]
    return directive("class", node.name + head.removesuffix(" -> None"), body)


def constant(node: ast.Assign, comments: dict[int, str]) -> str:
    "A name for a value, if a comment explains it."
    return directive("data", node.targets[0].id, [comments[node.lineno]])


def parts(tree: ast.Module, comments: dict[int, str]) -> list[str]:
    "Everything public, in the order in which it is written."
    found = []
    for node in tree.body:
        if isinstance(node, Function) and not node.name.startswith("_"):
            found.append(described(node, comments))
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            found.append(classed(node, comments))
        named = isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
        if named and node.targets[0].id.isupper() and node.lineno in comments:
            found.append(constant(node, comments))
    return found


def module_page(
    path: Path,  # of a module
    name: str,  # as it is imported
    origin: str,  # a link to the notebook that makes it
    summary: str,  # one sentence
) -> str:  # Markdown
    "What a module offers."
    source = path.read_text(encoding="utf-8")
    found = parts(ast.parse(source), comments_of(source))
    head = [f"# {name}", "", f"{summary} Made by the notebook {origin}.", "",
            directive("module", name, [])]
    return "\n".join([*head, *found])
