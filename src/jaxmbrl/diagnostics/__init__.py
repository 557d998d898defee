"""Pictures of episodes: `animation` of the classic tasks, `viewer` for Brax."""

from jaxmbrl.diagnostics.animation import animate

__all__ = ["animate"]
