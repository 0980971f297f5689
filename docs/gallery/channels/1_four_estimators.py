"""
An IRS channel with four estimators
===================================

A mobile station talks to a base station over an intelligent reflecting surface. The cascaded channel is
sparse in angles, on a Kronecker product of three dictionaries. Four estimators find it from the same few
pilots.
"""

import matplotlib.pyplot as plt
import torch

from unfoldkit.sbl import KSBL, AMKroSBL, PCKroSBL, SVDKroSBL
from unfoldkit.sbl.simulation.metrics import channel_nmse
from unfoldkit.sbl.systems import IRSMIMO, observe

system, random = IRSMIMO(), torch.Generator().manual_seed(3)
training, channel = system.draw_training(random), system.draw_channel(random)
y, noise_variance = observe(system.received(channel, training), system.draw_noise(random), snr_db=16.0)
factors, truth = system.factors(training), system.cascade(channel, training)
print(f"{len(y)} measurements of {system.grid**3} unknowns; factors {[tuple(A.shape) for A in factors]}")

# %%
# Each is called with the factors, the measurements and the noise variance, or ``None`` to have it estimated.

estimators = {
    "SVD-KroSBL": SVDKroSBL(),
    "AM-KroSBL": AMKroSBL(),
    "PC-KroSBL": PCKroSBL(0.8, coupled=(0, 2)),  # angles of the IRS and the base station come in blocks
    "KSBL": KSBL(),
}
estimates = {name: estimator(factors, y, noise_variance) for name, estimator in estimators.items()}
errors = {}
for name, estimate in estimates.items():
    errors[name] = float(channel_nmse(system.channel_of(estimate.mean, training), truth))
    print(
        f"{name:10}  NMSE {errors[name]:.4f}  {int(estimate.iterations):3} iterations  "
        f"converged {bool(estimate.converged)}  residual to noise {float(estimate.residual_to_noise):.2f}"
    )

# %%
# Where the estimate lies: magnitudes over the angles at the mobile and at the base station, summed over the
# IRS.

figure, axes = plt.subplots(
    1,
    4,
    figsize=(8, 2.7),
    layout="constrained",
    sharey=True,
    num="Four maps, one an estimator, of magnitudes over two angles: in each a short bright bar "
    "stands alone.",
)
for axis, (name, estimate) in zip(axes, estimates.items(), strict=True):
    axis.imshow(estimate.mean.abs().square().sum(0).sqrt(), cmap="gray_r")
    axis.set(title=name, xlabel="base station")
axes[0].set_ylabel("mobile station")
