"""Sweeps: many configurations with many seeds, as few compiled programs.

grid       which configurations: a product of lists, or a sample of ranges
plan       parts that differ in float fields only, one program each; waves that fit into memory
program    one run as a function of its float fields, frozen where it diverges
execute    run what is missing, wave by wave
results    tables, a plot, and the best configuration
"""

from jaxmbrl.training.sweep.execution import execute
from jaxmbrl.training.sweep.grid import configurations
from jaxmbrl.training.sweep.plan import Sweep

__all__ = ["Sweep", "configurations", "execute"]
