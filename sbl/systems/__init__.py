"""Where problems come from: seeded systems that draw dictionaries, channels and noise."""

from .arrays import angular_grid, steering_vectors
from .irs_mimo import IRSMIMO, Channel, Training
from .observation import observe
from .synthetic import SyntheticProblem, draw_synthetic

__all__ = [
    "IRSMIMO",
    "Channel",
    "SyntheticProblem",
    "Training",
    "angular_grid",
    "draw_synthetic",
    "observe",
    "steering_vectors",
]
