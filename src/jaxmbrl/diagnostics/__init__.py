"""Is the model any good, and does it matter: pictures and reports of runs."""

from jaxmbrl.diagnostics.animation import animate

__all__ = ["animate"]
