"""The sizes at which planning is timed, ours and the peer's alike."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Sizes:
    """One CEM planning call of PETS with a known reward.

    Attributes:
        obs: O, length of an observation.
        action: A.
        angles: indices of the observation that the network sees as sine and cosine.
        reward: ``cartpole`` (1 until the pole falls, which ends the episode) or ``halfcheetah`` (no end).
        hidden: width of the hidden layers.
        layers: number of hidden layers.
        members: E.
        population: candidates (N).
        particles: P, of each candidate.
        horizon: H.
        iterations: of CEM.
        propagation: ``ts1`` or ``tsinf``.
        in_turn: members one after another, the faster way for wide networks on a CPU.
    """

    obs: int
    action: int
    angles: tuple[int, ...]
    reward: str
    hidden: int
    layers: int
    members: int
    population: int
    particles: int
    horizon: int
    iterations: int
    propagation: str = "ts1"
    in_turn: bool = True

    @property
    def layer_sizes(self) -> tuple[int, ...]:
        """Widths of the network's layers, input and output (mean and log-variance) included."""
        inputs = self.obs + len(self.angles) + self.action
        return (inputs, *[self.hidden] * self.layers, 2 * self.obs)

    @property
    def rows(self) -> int:
        """Particles that one member steps at once."""
        return self.population * self.particles // self.members

    @property
    def steps(self) -> int:
        """Network evaluations one after another in a planning call."""
        return self.horizon * self.iterations


# The stock cart-pole settings of mbrl-lib's PETS.
PAPER_CARTPOLE = Sizes(4, 1, (), "cartpole", 200, 4, 5, population=350, particles=20, horizon=15, iterations=5)
# Chua et al. 2018, appendix, arXiv:1805.12114.
PAPER_HALFCHEETAH = Sizes(18, 6, (2,), "halfcheetah", 200, 4, 5, population=500, particles=20, horizon=30, iterations=5)

NAMES = ("small", "paper_cartpole", "paper_halfcheetah")


def named(name: str) -> Sizes:
    """One of `NAMES`."""
    return {"small": small, "paper_cartpole": lambda: PAPER_CARTPOLE, "paper_halfcheetah": lambda: PAPER_HALFCHEETAH}[
        name
    ]()


def small() -> Sizes:
    """The sizes of the ``small`` preset of `jaxmbrl.agents.pets` on cart-pole."""
    from jaxmbrl import envs
    from jaxmbrl.agents import pets

    spec = envs.make("cartpole").spec
    config = pets.preset("small", spec).agent
    hidden = config.model.member.hidden
    if len(set(hidden)) != 1 or config.model.elites != config.model.size:
        raise ValueError(f"small: hidden layers {hidden}, elites {config.model.elites} have no equal at the peer")
    return Sizes(
        obs=spec.obs_size,
        action=spec.box.size,
        angles=spec.angles,
        reward="cartpole",
        hidden=hidden[0],
        layers=len(hidden),
        members=config.model.size,
        population=config.planner.population,
        particles=config.model.particles,
        horizon=config.horizon,
        iterations=config.planner.iterations,
        propagation=config.model.propagation,
        in_turn=config.model.in_turn,
    )


def override(sizes: Sizes, words: list[str]) -> Sizes:
    """Replace fields given as ``name=value`` words."""
    fields = {field.name: field.type for field in dataclasses.fields(Sizes)}
    changes: dict[str, object] = {}
    for word in words:
        name, _, value = word.partition("=")
        if name not in fields or name == "angles":
            raise SystemExit(f"{word}: no such size; sizes: {', '.join(fields)}")
        changes[name] = value if name in ("reward", "propagation") else int(value)
    return dataclasses.replace(sizes, **changes)  # type: ignore[arg-type]
