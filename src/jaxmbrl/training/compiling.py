"""How the programs of a run are compiled, and how hard XLA's CPU backend tries.

Most of a program's time goes into matrix products, which are a library's own code: what LLVM does beyond its first
level takes a fifth of the compile time, and returns nothing that could be measured. Pictures are the exception. They
are drawn by loops of XLA's own making, which only the later passes vectorise.

A program that runs once, to make the first state, has its loops fused the plain way, which takes 0.6 to 0.8 of the
time. LLVM's level 0 would take less again, but is not to be trusted: with jax 0.10.2 it made the gradients of SAC-SVG's
and SVG's objectives infinite (`tests/agents/test_value_gradients.py`, under jit; why was not found).
"""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax

from jaxmbrl.training.loop import Loop
from jaxmbrl.types import Array, PyTree, Spec

LEVEL = 1  # of LLVM's optimisations; XLA's default is 3
PLAIN = {"xla_cpu_use_fusion_emitters": False} if jax.__version_info__ < (0, 11) else {}  # later ones refuse it


def options(spec: Spec, *, once: bool = False) -> dict[str, Any]:
    """``compiler_options`` for ``jax.jit`` of a program with an environment in it; XLA's own on accelerators.

    Args:
        spec: of the environment.
        once: the program runs a single time.

    Example:
        >>> epoch = jax.jit(loop.epoch, donate_argnums=0, compiler_options=options(env.spec))
    """
    settled = jax.default_backend() != "cpu" or jax.config.values["jax_disable_most_optimizations"]
    if settled or spec.is_image:
        return {}
    return {"xla_backend_optimization_level": LEVEL, **(PLAIN if once else {})}


def start(
    loop: Loop, spec: Spec, keys: Array, template: PyTree, state: PyTree | None
) -> tuple[PyTree, Callable[..., Any], dict[str, float]]:
    """Compile what a run still needs, both programs at once, and make its first state unless there is one.

    Args:
        loop: of the run.
        spec: of its environment.
        keys: what ``loop.init`` takes.
        template: shapes, dtypes and places of the state.
        state: to go on from, or None.

    Returns:
        The state, the compiled epoch, which consumes its argument, and by program the seconds until it was ready.
    """
    begin, seconds = time.monotonic(), {}
    place = jax.tree.leaves(template)[0].sharding  # said, or a leaf of size zero would come back elsewhere

    def compiled(name: str, lowered: jax.stages.Lowered, *, once: bool = False) -> Callable[..., Any]:
        program = lowered.compile(options(spec, once=once))
        seconds[name] = round(time.monotonic() - begin, 3)
        return program

    with ThreadPoolExecutor(1) as beside:  # XLA spends most of its time on one core
        lowered = jax.jit(loop.epoch, donate_argnums=0, out_shardings=(place, None)).lower(template)
        epoch = beside.submit(compiled, "epoch", lowered)
        if state is None:
            state = compiled("init", jax.jit(loop.init, out_shardings=place).lower(keys), once=True)(keys)
        return state, epoch.result(), seconds
