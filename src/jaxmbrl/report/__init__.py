"""A page to look at: what runs learned, how good their models are, and whether it matters.

report.write([Path("runs/a"), Path("runs/b")], Path("report.html"), episodes=5, seeds=2)
"""

from jaxmbrl.report.page import write

__all__ = ["write"]
