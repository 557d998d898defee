"""Return targets, as pure functions of the arrays of one sequence; ``vmap`` adds the batch axis.

Every function sees time as a row of steps t = 0, ..., T-1, oldest first, and takes

- ``reward`` [T], r_t, of the step;
- ``discount`` [T], d_t = gamma times the chance that the episode goes on after the step: 0 at a termination, and gamma
  at a time limit, beyond which there is value;
- ``value_tp1`` [T], V of the step's *true* next observation, which for the last step of an episode is none of the row's
  own observations;
- ``ended`` bool [T], terminated or truncated: the next entry of the row belongs to another episode, and nothing of it
  may flow back. The end of the row counts as such a border.

Nothing here stops a gradient; the caller does, where a target has to be a constant.
"""

from jaxmbrl.values.expansion import Expanded, candidate_targets, horizon_targets, mve, reach, steve
from jaxmbrl.values.off_policy import VTrace, retrace, vtrace
from jaxmbrl.values.returns import gae, lambda_returns, n_step_returns

__all__ = [
    "Expanded",
    "VTrace",
    "candidate_targets",
    "gae",
    "horizon_targets",
    "lambda_returns",
    "mve",
    "n_step_returns",
    "reach",
    "retrace",
    "steve",
    "vtrace",
]
