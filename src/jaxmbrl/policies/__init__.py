"""What optimises the parameters of a policy, from any source of transitions.

Each module has ``Config`` and ``make(spec, config)``, which returns a `types.Learner`, or the
`actor_critic.ActorCritic` that extends it by what value expansion and policy gradients through a model need.
"""

from types import ModuleType
from typing import Any

from jaxmbrl.config import ConfigError
from jaxmbrl.policies import sac, td3
from jaxmbrl.policies.actor_critic import ActorCritic
from jaxmbrl.types import Spec

ACTOR_CRITICS: dict[str, ModuleType] = {"sac": sac, "td3": td3}
CONFIGS: dict[str, type] = {name: module.Config for name, module in ACTOR_CRITICS.items()}


def make_actor_critic(spec: Spec, config: Any) -> ActorCritic:
    """The off-policy actor-critic whose ``Config`` this is. Raises ConfigError where it is none's."""
    for module in ACTOR_CRITICS.values():
        if type(config) is module.Config:
            return module.make(spec, config)
    raise ConfigError(f"policy: got {config!r}, needs the Config of one of {', '.join(ACTOR_CRITICS)}")
