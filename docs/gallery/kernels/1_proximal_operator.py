r"""
A proximal operator and its gradient
====================================

The proximal operator of :math:`t\,\|B\|_*` shrinks singular values: it is the background step of robust PCA.
Here it cleans a matrix of rank 2, and its threshold is found by gradient descent through the operator.
"""

import matplotlib.pyplot as plt
import torch

from unfoldkit import kernels

torch.manual_seed(0)
clean = torch.randn(40, 2) @ torch.randn(2, 40)
noisy = clean + 0.5 * torch.randn(40, 40)

# %%
# The operator is differentiable in the matrix and in the threshold, also where singular values coincide or
# vanish.

threshold = torch.tensor(1.0, requires_grad=True)
optimizer = torch.optim.Adam([threshold], lr=0.3)
thresholds, errors = [], []
for _ in range(60):
    loss = (kernels.singular_value_threshold(noisy, threshold) - clean).square().mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    thresholds.append(threshold.item())
    errors.append(loss.item())
print(f"threshold {thresholds[-1]:.2f}: mean squared error {errors[0]:.3f} before, {errors[-1]:.3f} after")

# %%
# The slope that autograd gives is that of the curve.

levels = torch.linspace(0, 12, 60)
curve = [float((kernels.singular_value_threshold(noisy, t) - clean).square().mean()) for t in levels]
spectra = {
    "noisy": kernels.svdvals(noisy),
    "thresholded": kernels.svdvals(kernels.singular_value_threshold(noisy, threshold.detach())),
    "clean": kernels.svdvals(clean),
}

figure, (left, right) = plt.subplots(
    1,
    2,
    figsize=(8, 3.4),
    layout="constrained",
    num="Left: the error falls to a minimum as the threshold grows, and gradient descent ends in it. Right: the "
    "first 12 singular values; thresholding leaves two large ones, as the clean matrix has, and the others sink.",
)
left.plot(levels, curve, color="0.6")
left.plot(thresholds, errors, "k.", markersize=4)
left.set(xlabel="threshold", ylabel="mean squared error", title="Gradient descent on the threshold")
for (name, values), marker in zip(spectra.items(), "osx", strict=True):
    right.plot(range(1, 13), values[:12], marker, label=name, fillstyle="none")
right.set(xlabel="index", ylabel="singular value", title="Spectra")
right.legend()
