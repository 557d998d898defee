"""The plan-act-learn loop, and what runs it on the host."""

from jaxmbrl.schedule import Schedule
from jaxmbrl.training.devices import over_seeds
from jaxmbrl.training.evaluation import evaluate, rollout
from jaxmbrl.training.loop import Loop, LoopState, make_loop, train

__all__ = ["Loop", "LoopState", "Schedule", "evaluate", "make_loop", "over_seeds", "rollout", "train"]
