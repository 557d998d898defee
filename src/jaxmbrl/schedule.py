"""When each part of a system learns: the fourth of the choices that make a system."""

from jaxmbrl.config import ConfigError, configurable, option


@configurable
class Schedule:
    """When each part of a system learns, and on how much experience. Steps are counted over all environments."""

    epochs: int = option(10, "epochs of a run: a row of metrics each", low=0)
    prefill: int = option(
        200, "steps before the first epoch, of uniformly random actions where the agent takes none itself", low=1
    )
    epoch_steps: int = option(200, "steps an epoch", low=1)
    fits_per_epoch: int = option(1, "times an epoch that the agent's slow learning runs", low=1)
    interact: int = option(1, "steps each environment makes between two of the agent's fast updates", low=1)
    num_envs: int = option(1, "environments that run in parallel (B)", low=1)
    capacity: int = option(0, "transitions that the replay store holds; 0 holds the whole run", low=0)
    eval_episodes: int = option(0, "episodes without exploration at the end of each epoch", low=0)

    def check(self) -> None:
        """Everything divides evenly, so that all scans have a static length."""
        block = self.fits_per_epoch * self.interact * self.num_envs
        if self.epoch_steps % block:
            needs = f"a multiple of fits_per_epoch * interact * num_envs ({block})"
            raise ConfigError(f"epoch_steps: got {self.epoch_steps}, needs {needs}")
        for name in ("prefill", "capacity"):
            if getattr(self, name) % self.num_envs:
                raise ConfigError(f"{name}: got {getattr(self, name)}, needs a multiple of num_envs ({self.num_envs})")

    @property
    def replay_capacity(self) -> int:
        """Transitions that the store holds."""
        return self.capacity or self.prefill + self.epochs * self.epoch_steps
