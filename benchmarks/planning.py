"""One planning call of PETS against the machine's matrix-product rate at the same shapes, in the same run.

    python -m benchmarks.planning [--at paper_halfcheetah] [population=400 ...] [--repeats 5] [--threads N]

The floating-point operations that count are those of the network's matrix products: 2 rows sum_i s_i s_(i+1) for each
of the members at each of the horizon x iterations steps, each particle through one member. XLA's own count of one
step is printed beside it. Sampling, activations, normalisation, rewards and the elites' selection cost time, but
count for nothing.
"""

import argparse
import dataclasses
from collections.abc import Callable
from typing import Any

from benchmarks import gemm, timing
from benchmarks.sizes import NAMES, Sizes, named, override


def flops(sizes: Sizes) -> int:
    """Floating-point operations of a planning call's matrix products."""
    return sizes.steps * sizes.members * gemm.flops(sizes.layer_sizes, sizes.rows)


def make_spec(sizes: Sizes) -> Any:
    """A spec of the given sizes with a known reward (and termination), as the peer's benchmark has it."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    from jaxmbrl.types import Box, Spec

    def fallen(obs: jax.Array, action: jax.Array, next_obs: jax.Array) -> jax.Array:
        return (jnp.abs(next_obs[0]) >= 2.4) | (jnp.abs(next_obs[2]) >= 12 * 2 * np.pi / 360)

    def upright(obs: jax.Array, action: jax.Array, next_obs: jax.Array) -> jax.Array:
        return 1.0 - fallen(obs, action, next_obs).astype(jnp.float32)

    def run(obs: jax.Array, action: jax.Array, next_obs: jax.Array) -> jax.Array:
        return next_obs[0] - 0.1 * jnp.sum(jnp.square(action))

    reward, termination = {"cartpole": (upright, fallen), "halfcheetah": (run, None)}[sizes.reward]
    one = np.ones(sizes.action, np.float32)
    return Spec(
        name=sizes.reward,
        observation=jax.ShapeDtypeStruct((sizes.obs,), jnp.float32),
        action=Box(-one, one),
        episode_length=1000,
        reward=reward,
        termination=termination,
        angles=sizes.angles,
    )


def make_model(sizes: Sizes) -> Any:
    """An ensemble of the given sizes, and its initial parameters; untrained weights cost the same as trained ones."""
    import jax

    from jaxmbrl.models import ensemble, one_step

    member = one_step.Config(hidden=(sizes.hidden,) * sizes.layers)
    config = ensemble.Config(
        member=member,
        size=sizes.members,
        elites=sizes.members,
        particles=sizes.particles,
        propagation=sizes.propagation,
        in_turn=sizes.in_turn,
    )
    model = ensemble.make(make_spec(sizes), config).world
    return model, model.init(jax.random.key(0))


def make_call(sizes: Sizes) -> Callable[[], Any]:
    """A compiled planning call: from an observation to the first action, the warm start reset."""
    import jax
    import jax.numpy as jnp

    from jaxmbrl.planners import cem, receding
    from jaxmbrl.types import TimeStep

    model, params = make_model(sizes)
    elites = -(-sizes.population // 10)  # a tenth, rounded up as mbrl-lib does
    config = cem.Config(population=sizes.population, elites=elites, iterations=sizes.iterations)
    planner = cem.make((sizes.horizon, sizes.action), -1.0, 1.0, config)

    @jax.jit
    def act(params: Any, key: jax.Array, obs: jax.Array) -> jax.Array:
        key_start, key_plan = jax.random.split(key)
        false = jnp.zeros((), bool)
        state = model.start(params, key_start, TimeStep((), obs, jnp.zeros(()), false, false))
        objective = receding.objective(model, params, state)
        return receding.control(key_plan, objective, planner.init(), planner=planner)[0]

    obs = jnp.zeros(sizes.obs)
    return lambda: act(params, jax.random.key(1), obs)


def counted_flops(sizes: Sizes) -> float:
    """XLA's count of one step of all particles of all candidates, times the number of steps.

    XLA counts the body of a loop once, so only a plan of horizon 1, scored once, is costed.
    """
    import jax
    import jax.numpy as jnp

    from jaxmbrl.planners import receding

    model, params = make_model(dataclasses.replace(sizes, in_turn=False))  # in turn is a loop too
    cloud = jnp.zeros((sizes.members, sizes.particles // sizes.members, sizes.obs))
    score = jax.jit(lambda params, key, actions: receding.objective(model, params, cloud)(key, actions))
    candidates = jax.ShapeDtypeStruct((sizes.population, 1, sizes.action), jnp.float32)
    cost = score.lower(params, jax.random.key(0), candidates).compile().cost_analysis()
    assert cost is not None
    return cost["flops"] * sizes.steps


def main() -> None:
    """Time planning calls and matrix products in turn, and print the share of the rate that planning reaches."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sizes", nargs="*", metavar="name=value", help="sizes that differ from the chosen ones")
    parser.add_argument("--at", choices=NAMES, default="paper_halfcheetah")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=None, help="cores to use (default: all)")
    arguments = parser.parse_args()
    timing.use_threads(arguments.threads)
    sizes = override(named(arguments.at), arguments.sizes)
    call = make_call(sizes)
    products = {
        layout: gemm.chain(sizes.layer_sizes, sizes.members, sizes.rows, unrolled=unrolled)
        for layout, unrolled in (("batched", False), ("one member at a time", True))
    }
    runs = {name: (lambda run=run: timing.measure(run)) for name, run in {"plan": call, **products}.items()}
    timings = timing.alternate(runs, arguments.repeats)
    plan = timing.median(timings["plan"])
    layout = min(products, key=lambda name: timing.median(timings[name]).wall)
    product_flops = gemm.STEPS * sizes.members * gemm.flops(sizes.layer_sizes, sizes.rows)
    products_wall = timing.median(timings[layout]).wall
    counted = counted_flops(sizes)
    timing.report(
        "planning",
        {
            "sizes": dataclasses.asdict(sizes),
            "seconds": plan.wall,
            "cpu_seconds": plan.cpu,
            "gflop": flops(sizes) / 1e9,
            "gflop_counted_by_xla": counted / 1e9,
            "gflops": flops(sizes) / plan.wall / 1e9,
            "gemm_gflops": product_flops / products_wall / 1e9,
            "gemm_layout": layout,
            "share_of_gemm": (flops(sizes) / plan.wall) / (product_flops / products_wall),
            "repeats": arguments.repeats,
        },
    )


if __name__ == "__main__":
    main()
