"""Tables on standard output: what there is, and the fields of what there is."""

import ast
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from jaxmbrl.config import describe

if TYPE_CHECKING:
    from jaxmbrl.training.manifest import Run

PACKAGE = Path(__file__).parent.parent
NARROW = 120  # Columns where standard output is no terminal.


def print_table(title: str, rows: Iterable[tuple[str, str]]) -> None:
    """Print names and what they are, one a line."""
    table = Table(title=title, title_style="bold", title_justify="left", box=None, show_header=False, padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for row in rows:
        table.add_row(*row)
    _console().print(table, markup=False)


def print_fields(run: "Run") -> None:
    """Print every field of a system, a schedule and an environment, with values and help."""
    from jaxmbrl.envs.documented import document  # imports JAX, which only an environment needs

    _print_fields(f"{run.system} ({run.preset})", describe(run.agent, "--agent."))
    _print_fields("schedule", describe(run.schedule, "--schedule."))
    options = ((f"--env.{name}", value, document(run.env, name)) for name, value in run.options.items())
    _print_fields(run.env, options)


def parts(package: str) -> Iterator[tuple[str, str]]:
    """Names and first lines of the modules of a package that have ``Config`` and ``make``; read, not imported."""
    for path in sorted((PACKAGE / package).glob("*.py")):
        module = ast.parse(path.read_text(encoding="utf-8"))
        named = {node.name for node in module.body if isinstance(node, ast.ClassDef | ast.FunctionDef)}
        if {"Config", "make"} <= named:
            yield path.stem, (ast.get_docstring(module) or "").partition("\n")[0]


def _print_fields(title: str, rows: Iterable[tuple[str, object, str]]) -> None:
    table = Table(title=title, title_style="bold", title_justify="left", box=None, padding=(0, 2))
    table.add_column("option", no_wrap=True)
    table.add_column("default")
    table.add_column("what it is", overflow="fold")
    for path, value, text in rows:
        table.add_row(path, _shown(value), text)
    _console().print(table, markup=False)


def _shown(value: object) -> str:
    """A value as it would be typed."""
    if isinstance(value, tuple):
        return ",".join(map(str, value)) or "()"
    return str(value).lower() if isinstance(value, bool) else str(value)


def _console() -> Console:
    console = Console(markup=False, highlight=False)
    return console if console.is_terminal else Console(markup=False, highlight=False, width=NARROW)
