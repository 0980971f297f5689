"""Where problems come from: seeded systems that draw dictionaries, channels and noise."""

from sbl.systems.arrays import angular_grid, steering_vectors
from sbl.systems.irs_mimo import IRSMIMO, Channel, Training
from sbl.systems.observation import observe
from sbl.systems.synthetic import SyntheticProblem, draw_synthetic

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
