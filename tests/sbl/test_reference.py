"""Agreement with the estimates that the authors' code computed."""

import pytest
import scipy.io
import torch
from torch import Tensor

from unfoldkit.sbl import AMKroSBL, SVDKroSBL
from unfoldkit.sbl.simulation.experiments import irs_estimator
from unfoldkit.sbl.simulation.metrics import channel_nmse, nmse
from unfoldkit.sbl.systems import IRSMIMO, Channel, Training, observe

pytestmark = [pytest.mark.reference, pytest.mark.usefixtures("engine")]


def load(path) -> dict[str, Tensor]:
    stored = scipy.io.loadmat(path)
    return {
        name: torch.from_numpy(value)
        for name, value in stored.items()
        if not name.startswith("__") and value.dtype != object
    }


@pytest.fixture
def real_case(reference_file):
    return load(reference_file("reference/krosbl_real_case.mat"))


@pytest.fixture
def irs_case(reference_file):
    return load(reference_file("reference/krosbl_irs_case.mat"))


@pytest.mark.parametrize(
    ("estimator", "stored", "tolerance"),
    [(SVDKroSBL(as_published=True), "es", 1e-8), (AMKroSBL(as_published=True), "ea", 1e-4)],
)
def test_real_case(real_case, estimator, stored, tolerance):
    case = real_case
    y, s2 = observe(case["yo"][:, 0], case["noise"][:, 0], case["SNR"][0])
    estimate = estimator([case["A1"], case["A2"], case["A3"]], y, s2)
    error = nmse(estimate.mean.flatten(-3), case["x"][:, 0])
    torch.testing.assert_close(error, case[stored][0], rtol=tolerance, atol=0)


@pytest.mark.parametrize(
    ("stored", "name", "tolerance"), [(0, "SVD", 1e-5), (1, "AM", 1e-5), (2, "PC0.8", 1e-3)]
)
def test_irs_case(irs_case, stored, name, tolerance):
    case, system = irs_case, IRSMIMO()
    training = Training(case["X"], case["IRS"].to(torch.complex128))
    truth = system.cascade(Channel(case["H1"], case["H2"]), training)
    s2 = case["noise_var"][0]
    y = case["ybar"].mT.flatten() + s2.sqrt().unsqueeze(-1) * case["noise"][:, 0]
    estimate = irs_estimator(name, as_published=True)(system.factors(training), y, s2)
    error = channel_nmse(system.channel_of(estimate.mean, training), truth)
    torch.testing.assert_close(error, case["nmse"][stored], rtol=tolerance, atol=0)


def test_irs_system(irs_case):
    case, system = irs_case, IRSMIMO()
    training = Training(case["X"], case["IRS"].to(torch.complex128))
    for ours, stored in zip(system.factors(training), ("Hp1", "Hp2", "A2"), strict=True):
        torch.testing.assert_close(ours, case[stored])
    received = system.received(Channel(case["H1"], case["H2"]), training)
    torch.testing.assert_close(received, case["ybar"].mT.flatten())
