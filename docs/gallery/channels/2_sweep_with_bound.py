"""
A sweep over SNR with its bound
===============================

How good can an estimator get? Least squares that is told the true support is the mark to compare with. The
sweep is ``unfoldkit simulate synthetic``, called from Python.
"""

from tempfile import TemporaryDirectory

import matplotlib.pyplot as plt

from unfoldkit.sbl import SyntheticOptions, simulate

with TemporaryDirectory() as room:
    rows = simulate(
        SyntheticOptions(),
        f"{room}/run",
        estimators="SVD,AM,KOMP,OLS",
        trials=40,
        snr="5,10,15,20,25",
        workers=1,
    )

# %%
# A row for each estimator and SNR. The mean follows a few failed trials; the median says what is usual.

names = {"SVD": "SVD-KroSBL", "AM": "AM-KroSBL", "KOMP": "Kronecker OMP", "OLS": "true support known"}
curves = {name: [row for row in rows if row["estimator"] == name] for name in names}
for name, curve in curves.items():
    print(f"{names[name]:20}", "  ".join(f"{row['snr_db']:g} dB: {row['median_nmse']:.5f}" for row in curve))

# %%
figure, axis = plt.subplots(
    figsize=(5.5, 4),
    layout="constrained",
    num="Median NMSE over SNR on a logarithmic axis. All four fall by a factor of ten every 10 dB; "
    "the three estimators"
    "lie above the curve of the known support and come close to it.",
)
for (name, curve), style in zip(curves.items(), ("o-", "s--", "x:", "k-."), strict=True):
    x, middle = [row["snr_db"] for row in curve], [row["median_nmse"] for row in curve]
    axis.semilogy(x, middle, style, label=names[name])
axis.set(xlabel="SNR (dB)", ylabel="median NMSE", title="Four estimators and the known support")
axis.legend()
axis.grid(alpha=0.3)
