"""Lists every error and log line that the package can print, for reading them as a whole.

A line of the list is where it stands, what it is (the class of an error, the level of a log line),
and its text, with {...} for what is filled in. ``python scripts/messages.py [FOLDER]``.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "airflow_provider_cdm"
LEVELS = {"debug", "info", "warning", "error", "exception", "critical"}


def text_of(node: ast.AST | None) -> str:
    """A text as it stands in the code; empty if it is made elsewhere."""
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else ""
    if isinstance(node, ast.JoinedStr):
        return "".join(
            f"{{{ast.unparse(each.value)}}}"
            if isinstance(each, ast.FormattedValue)
            else text_of(each)
            for each in node.values
        )
    if isinstance(node, ast.BinOp):
        return text_of(node.left) + text_of(node.right)
    return ""


def messages(path: Path) -> Iterator[tuple[int, str, str]]:
    """Line, kind and text of each message in a file."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
            name = ast.unparse(node.exc.func).rpartition(".")[2]
            text = text_of(node.exc.args[0]) if node.exc.args else ""
            yield node.lineno, name, text or f"({ast.unparse(node.exc)[:90]})"
        elif (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and node.func.attr in LEVELS
            and "log" in ast.unparse(node.func.value)
        ):
            given = ", ".join(ast.unparse(each) for each in node.args[1:])
            text = text_of(node.args[0]) if node.args else ""
            yield node.lineno, node.func.attr, f"{text} <- {given}" if given else text


def main() -> None:
    """Print the list."""
    folder = Path(sys.argv[1]) if sys.argv[1:] else PACKAGE
    for path in sorted(folder.rglob("*.py")):
        found = sorted(messages(path))
        for line, kind, text in found:
            print(f"{path.relative_to(folder)}:{line}\t{kind}\t{text!r}")


if __name__ == "__main__":
    main()
