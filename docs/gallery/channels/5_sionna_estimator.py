"""
A channel estimator for Sionna
==============================

Four users send pilots to a base station of 4 x 4 antennas through 3GPP's urban microcell, drawn by Sionna.
``KroSBLChannelEstimator`` takes the place of Sionna's own: it finds the paths of each user's channel, between the
points of any grid of beams and delays, and its error variance says how well. It needs
``pip install 'unfoldkit[sionna]'``.
"""

import matplotlib.pyplot as plt
import torch
from sionna.phy.ofdm import LSChannelEstimator, ResourceGrid

from unfoldkit.sbl import Cell, KroSBLChannelEstimator, umi_channels

grid = ResourceGrid(
    14, 288, 30e3, num_tx=4, pilot_pattern="kronecker", pilot_ofdm_symbol_indices=[2, 11], precision="single"
)
cell, pattern = Cell(), grid.pilot_pattern
channel = umi_channels(grid, drops=2, seed=5, cell=cell)
sent = torch.zeros(pattern.mask.shape, dtype=torch.complex64)
sent[pattern.mask.bool()] = pattern.pilots.flatten()
noise_variance = torch.tensor(1.0)  # 0 dB
received = (channel * sent).sum((3, 4)) + torch.randn(2, 1, 16, 14, 288, dtype=torch.complex64)

# %%
# The two are called alike.

estimators = {
    "least squares": LSChannelEstimator(grid, interpolation_type="lin"),
    "KroSBL": KroSBLChannelEstimator(grid, cell.array()),
}
figure, axis = plt.subplots(
    figsize=(7, 3),
    layout="constrained",
    num="Magnitude of one user's channel over subcarriers, and two estimates of it",
)
axis.plot(channel[0, 0, 0, 0, 0, 6].abs(), "k", label="channel")
for style, (name, estimator) in zip((":", "--"), estimators.items(), strict=True):
    estimate, variance = estimator(received, noise_variance)
    error = float((estimate - channel).abs().square().mean())
    print(f"{name:13}  NMSE {error:.4f}, said to be {float(variance.mean()):.4f}")
    axis.plot(estimate[0, 0, 0, 0, 0, 6].abs(), style, label=name)
axis.set(xlabel="subcarrier", ylabel="magnitude")
axis.legend(frameon=False)
