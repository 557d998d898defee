"""One training step of Dreamer at a proprioceptive size: seconds, compile seconds, share of the matrix-product rate.

    python -m benchmarks.dreamer [--batch 16] [--length 64] [--horizon 15] [--starts 0] [--repeats 3] [--threads N]

A model of about a million parameters (deter 512, 32 variables of 4 classes, 64 units), 17 observations and 6 actions
as half-cheetah's; imagination from all replayed beliefs. The operations of all matrix products are counted in the
program itself, loops included; the yardstick is a chain of nothing but products, of the width of the recurrent path.
"""

import argparse
import math
import time
from typing import Any

from benchmarks import gemm, timing

OBS, ACTION, ROWS = 17, 6, 4096


def product_flops(jaxpr: Any) -> int:
    """Floating-point operations of all matrix products in a program, a loop's times its length."""
    total = 0
    for equation in jaxpr.eqns:
        if equation.primitive.name == "dot_general":
            (contracted, _), _ = equation.params["dimension_numbers"]
            left, result = equation.invars[0].aval, equation.outvars[0].aval
            total += 2 * result.size * math.prod(left.shape[axis] for axis in contracted)
        times = equation.params.get("length", 1) if equation.primitive.name == "scan" else 1
        for value in equation.params.values():
            for inner in value if isinstance(value, tuple | list) else (value,):
                inner = getattr(inner, "jaxpr", inner)
                if hasattr(inner, "eqns"):
                    total += times * product_flops(inner)
    return total


def make_step(batch: int, length: int, horizon: int, starts: int) -> tuple[Any, tuple[Any, ...]]:
    """The traced step (``jax.stages.Traced``), and its arguments."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    from jaxmbrl import replay as replays
    from jaxmbrl.agents import dreamer, latent
    from jaxmbrl.models import optimisers, rssm
    from jaxmbrl.policies import imagination
    from jaxmbrl.types import Box, Spec, Transition

    units = {"activation": "swish", "norm": True}
    config = dreamer.Config(
        starts=starts,
        model=rssm.Config(
            deter=512,
            stoch=32,
            classes=4,
            hidden=64,
            layers=(64, 64, 64),
            embedding=64,
            reward_head="symexp_twohot",
            **units,
        ),
        fit=latent.Fit(optimiser=optimisers.Config("laprop"), batch_size=batch, length=length),
        policy=imagination.Config(
            horizon=horizon,
            hidden=(64, 64, 64),
            distribution="normal",
            gradient="reinforce",
            scale_returns=True,
            head="symexp_twohot",
            slow_rate=0.02,
            slow_bootstrap=False,
            optimiser=optimisers.Config("laprop"),
            **units,
        ),
    )
    box = Box(-np.ones(ACTION, np.float32), np.ones(ACTION, np.float32))
    agent = dreamer.make(Spec("half-cheetah's size", jax.ShapeDtypeStruct((OBS,), jnp.float32), box, 1000), config)
    key = jax.random.key(0)
    obs, never = jax.random.normal(key, (ROWS, 1, OBS)), jnp.zeros((ROWS, 1), bool)
    rows = Transition(obs, jnp.tanh(obs[..., :ACTION]), obs[..., 0], obs, never, never)
    arguments = (agent.init(key), key, replays.from_rows(rows, cursor=0, size=ROWS))
    return jax.jit(agent.improve).trace(*arguments), arguments


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--length", type=int, default=64)
    parser.add_argument("--horizon", type=int, default=15)
    parser.add_argument("--starts", type=int, default=0, help="beliefs that are imagined from; 0 for all")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=None, help="cores to use (default: all)")
    arguments = parser.parse_args()
    timing.use_threads(arguments.threads)
    import jax

    traced, inputs = make_step(arguments.batch, arguments.length, arguments.horizon, arguments.starts)
    flops = product_flops(traced.jaxpr.jaxpr)
    begin = time.perf_counter()
    step = traced.lower().compile()
    compile_seconds = time.perf_counter() - begin
    runs = timing.alternate({"step": lambda: timing.measure(lambda: step(*inputs))}, arguments.repeats)["step"]
    yardstick = gemm.rate([640, 1536], 1, arguments.batch * arguments.length, repeats=arguments.repeats)
    seconds = timing.best(runs).wall
    timing.report(
        "dreamer",
        {
            "parameters": sum(leaf.size for leaf in jax.tree.leaves((inputs[0].model.params, inputs[0].policy.actor))),
            "gflop": flops / 1e9,
            "step_seconds": seconds,
            "step_cpu_seconds": timing.best(runs).cpu,
            "compile_seconds": compile_seconds,
            "gflops_per_second": flops / seconds / 1e9,
            "yardstick_gflops_per_second": yardstick.gflops,
            "share": flops / seconds / 1e9 / yardstick.gflops,
        },
    )


if __name__ == "__main__":
    main()
