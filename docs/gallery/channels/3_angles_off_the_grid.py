"""
Angles off the grid
===================

Real angles do not lie on a dictionary's grid. `DecomposedSBL` moves its atoms between the points, and says
how sure it is of each.
"""

import matplotlib.pyplot as plt
import torch

from unfoldkit.sbl import AMKroSBL, DecomposedSBL
from unfoldkit.sbl.systems import angular_grid, observe, steering_vectors

grid = angular_grid(24)
A = steering_vectors(grid, 16).mT  # 16 antennas on a grid of 24 cosines, at both ends
true = torch.tensor([0.313, -0.547], dtype=torch.float64)
clean = torch.kron(*(steering_vectors(cosine, 16) for cosine in true))
random = torch.Generator().manual_seed(0)
noise = torch.randn(len(clean), generator=random, dtype=clean.dtype)
y, noise_variance = observe(clean, noise, snr_db=10.0)

# %%
# On the grid, the energy of one angle spreads over its neighbours, and the residual stays above the noise.

on_grid, off_grid = AMKroSBL()([A, A], y, noise_variance), DecomposedSBL()([A, A], y, noise_variance)
for name, estimate in {"on the grid": on_grid, "off the grid": off_grid}.items():
    error = (torch.kron(A, A) @ estimate.mean.flatten() - clean).norm() ** 2 / clean.norm() ** 2
    print(f"{name:12}  NMSE {error:.4f}  residual to noise {float(estimate.residual_to_noise):.2f}")
for angles, cosine in zip(off_grid.angles, true, strict=True):
    print(f"cosine {angles.cosine[0]:.3f} +- {angles.cosine_spread[0]:.3f}, in truth {cosine:.3f}")

# %%
figure, axis = plt.subplots(
    figsize=(5.5, 3.4),
    layout="constrained",
    num="Amplitude over cosine. On the grid several bars stand around the true angle; off the grid "
    "one cross lies on it.",
)
amplitude = on_grid.mean.abs().square().sum(1).sqrt()
axis.vlines(grid, 0, amplitude, color="0.5", linewidth=4, label="on the grid")
axis.plot(off_grid.angles[0].cosine, off_grid.angles[0].amplitude, "kx", label="off the grid")
axis.axvline(true[0], color="k", linestyle=":", label="truth")
axis.set(
    xlabel="cosine of the first angle",
    ylabel="amplitude",
    title="One angle between two grid points",
    xlim=(-0.2, 0.8),
)
axis.legend()
