"""Pictures of episodes, and functions that judge models.

`animation` draws the classic tasks, `viewer` Brax's, `open_loop` what was imagined beside what was seen. `predictive`,
`calibration` and `horizon` ask whether a model is any good, `mismatch` whether that matters; they take and give arrays.
"""

from jaxmbrl.diagnostics.animation import animate

__all__ = ["animate"]
