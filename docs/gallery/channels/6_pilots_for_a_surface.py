"""
How many pilots a surface is worth
==================================

The phases of an intelligent surface are set by an estimate of the channel. Few pilots leave a poor estimate, many
leave little time for data: the rate has a maximum, which is higher with a sparse estimate than with least squares.
``unfoldkit benchmark surface`` makes the same sweep of the paper's system.
"""

import matplotlib.pyplot as plt

from unfoldkit.sbl import AMKroSBL, LeastSquares, PCKroSBL
from unfoldkit.sbl.systems import IRSMIMO
from unfoldkit.sbl.systems.pilot_sweep import rates_by_pilots

system = IRSMIMO(bs=8, ms=2, irs=32, grid=12, pilots=2)
estimators = {"least squares": LeastSquares(), "AM": AMKroSBL(), "PC 0.8": PCKroSBL(0.8, coupled=(0, 2))}
patterns = [1, 2, 4, 6, 10, 16, 32, 48]
rates = rates_by_pilots(system, estimators, patterns, snr_db=5.0, coherence=200, bits=2, trials=40)

# %%
# Two bits a phase, 200 symbols until the channel is another.

figure, axis = plt.subplots(
    figsize=(7, 3),
    layout="constrained",
    num="Rate against pilots spent for three estimators and the known channel",
)
for (name, row), style in zip(rates.items(), ("o-", "s-", "^-", "k--"), strict=True):
    best = max(range(len(patterns)), key=row.__getitem__)
    print(f"{name:13}  at most {row[best]:.2f} bit/s/Hz, with {patterns[best] * system.pilots} pilots")
    axis.plot([count * system.pilots for count in patterns], row, style, label=name)
axis.set(xlabel="pilot symbols", ylabel="bit/s/Hz", xscale="log")
axis.legend(frameon=False)
