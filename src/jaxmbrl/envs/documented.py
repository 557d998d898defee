"""What the environments' options mean, one line each: the help of ``jaxmbrl train SYSTEM ENV --help``."""

_OF_ALL = {
    "action_repeat": "steps of the simulator that one action lasts; their rewards are summed",
    "episode_length": "steps of the simulator after which an episode is truncated",
    "frame_stack": "observations that are shown side by side, the latest last",
}
_PIXELS = {"size": "of a picture's sides, pixels"}
_CLASSIC = {
    "center_1": "from the inner link's joint to its centre of mass, m",
    "center_2": "from the outer link's joint to its centre of mass, m",
    "damping": "of each joint, N m s/rad",
    "dt": "time of a step, s",
    "force": "on the cart at action 1, N",
    "friction": "between cart and track, N s/m",
    "gravity": "gravitational acceleration, m/s^2",
    "half_length": "from the pole's hinge to its centre of mass, m",
    "inertia": "of each link about its centre of mass, kg m^2",
    "length": "of the rod, m",
    "length_1": "of the inner link, m",
    "length_2": "of the outer link, m",
    "mass": "of the rod, kg",
    "mass_1": "of the inner link, kg",
    "mass_2": "of the outer link, kg",
    "mass_cart": "of the cart, kg",
    "mass_pole": "of the pole, kg",
    "max_angle": "of the pole from upright, beyond which the episode terminates, rad",
    "max_position": "of the cart from the middle, beyond which the episode terminates, m",
    "max_speed": "the angular velocity is clipped to it, rad/s",
    "max_speed_1": "the inner link's angular velocity is clipped to it, rad/s",
    "max_speed_2": "the outer link's angular velocity is clipped to it, rad/s",
    "pole_length": "from the hinge to the pole's tip, m",
    "reward": "what is paid for, the name of a reward",
    "torque": "on each driven joint at action 1, N m",
}
_BRAX = {
    "backend": "the physics: generalized, mjx, positional or spring",
    "ctrl_cost_weight": "cost of one unit of squared control",
    "forward_reward_weight": "reward for a forward velocity of 1 m/s",
    "forward_velocity": "observe the forward velocity, which makes the reward a known function",
    "healthy_reward": "bonus of every step",
}
_OWN = {
    "car_racing": {
        "brake": "deceleration at brake 1, 1/s^2",
        "drag": "deceleration per squared speed; with the engine it sets the top speed",
        "engine": "acceleration at gas 1, 1/s^2",
        "grass": "share of an axle's grip that is left on grass",
        "grip": "largest acceleration that an axle's friction gives, 1/s^2",
        "road": "half of the road's width",
        "track_radius": "of the farthest checkpoint from the middle of the field",
    },
    "linear_quadratic": {
        "action_cost": "the action's cost matrix is this times the identity (above 0)",
        "action_size": "length of the action (at least 1)",
        "seed": "that the system is drawn from (at least 0)",
        "spectral_radius": "largest magnitude of an eigenvalue of A; above 1 the system is unstable (at least 0)",
        "state_size": "length of the state (at least 1)",
    },
    "mountain_car": {
        "goal_position": "where the episode terminates",
        "goal_velocity": "that the car needs at least there, 1/step",
        "gravity": "acceleration down the steepest slope, 1/step^2",
        "max_speed": "the velocity is clipped to it, 1/step",
        "power": "acceleration at action 1, 1/step^2",
    },
}


def document(name: str, option: str) -> str:
    """What an option of the environment ``name`` means, '' where nothing is known."""
    inner = name.removeprefix("pixels/")
    shared = _BRAX if inner.startswith("brax/") else _CLASSIC
    return (_OF_ALL | _PIXELS | shared | _OWN.get(inner, {})).get(option, "")
