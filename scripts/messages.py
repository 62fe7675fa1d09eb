"""Lists all error texts and log lines of the package, for a review of all.

Each line of the list has the place, the kind (class of the error or level of the log line), and the
text, with ``{...}`` for values. Usage: ``python scripts/messages.py [FOLDER]``.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "airflow_provider_cdm"
LEVELS = {"debug", "info", "warning", "error", "exception", "critical"}


def text_of(node: ast.AST | None) -> str:
    """Return the text of an expression; empty if it is not a literal."""
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else ""
    if isinstance(node, ast.JoinedStr):
        return "".join(
            f"{{{ast.unparse(part.value)}}}"
            if isinstance(part, ast.FormattedValue)
            else text_of(part)
            for part in node.values
        )
    if isinstance(node, ast.BinOp):
        return text_of(node.left) + text_of(node.right)
    return ""


def messages(path: Path) -> Iterator[tuple[int, str, str]]:
    """Yield line, kind and text of each message in a file."""
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
            arguments = ", ".join(ast.unparse(argument) for argument in node.args[1:])
            text = text_of(node.args[0]) if node.args else ""
            yield node.lineno, node.func.attr, f"{text} <- {arguments}" if arguments else text


def main() -> None:
    """Print the list."""
    folder = Path(sys.argv[1]) if sys.argv[1:] else PACKAGE
    for path in sorted(folder.rglob("*.py")):
        for line, kind, text in sorted(messages(path)):
            print(f"{path.relative_to(folder)}:{line}\t{kind}\t{text!r}")


if __name__ == "__main__":
    main()
