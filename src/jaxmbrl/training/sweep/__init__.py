"""Sweeps: many configurations with many seeds, as few compiled programs.

grid       which configurations: a product of lists, or a sample of ranges
plan       parts that differ in float fields only, one program each; waves that fit into memory
program    one run as a function of its float fields, frozen where it diverges
store      what is on disk, and how processes share it
execution  run what is missing, wave by wave
archive    read a sweep, finished or not
results    tables, a plot, and the best configuration
"""

from jaxmbrl.training.sweep.execution import execute
from jaxmbrl.training.sweep.grid import configurations
from jaxmbrl.training.sweep.plan import Sweep

__all__ = ["Sweep", "configurations", "execute"]
