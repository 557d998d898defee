"""Model-based reinforcement learning in JAX: plan, act and learn in one XLA program."""

__version__ = "0.1.0"
