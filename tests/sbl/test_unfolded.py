"""The unfolded estimator: untrained it is its base, trained it learns, and its parameters keep their meaning."""

import pytest
import torch

from unfoldkit.sbl import UnfoldedKroSBL, load_estimator, save_estimator
from unfoldkit.sbl.em.kronecker_posterior import kronecker_posterior
from unfoldkit.sbl.em.state import initial_state
from unfoldkit.sbl.estimators.unfolded import base_estimator
from unfoldkit.sbl.problem import pose
from unfoldkit.sbl.systems import IRSMIMO
from unfoldkit.sbl.training.task import EstimationTask, draw_batch

SMALL = IRSMIMO(bs=5, ms=3, irs=8, grid=6, pilots=2, patterns=3, dtype=torch.complex64)


def perturbed(seed=0, amount=0.3, **options):
    net = UnfoldedKroSBL(**options)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter += amount * torch.randn(parameter.shape, generator=generator)
    return net


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
@pytest.mark.parametrize("m_step", ["svd", "am"])
@pytest.mark.parametrize("as_published", [False, True])
def test_untrained_it_equals_its_base(draw, as_published, m_step, dtype):
    factors, _, y, s2 = draw((5, 6, 4), (7, 8, 3), batch=(3,), dtype=dtype)
    if m_step == "am" and not as_published:
        factors = [A / A.norm(dim=-2, keepdim=True) for A in factors]
    net = UnfoldedKroSBL(iterations=6, m_step=m_step, sweeps=2, as_published=as_published)
    found = net(factors, y, s2)
    expected = base_estimator(m_step, 6, 2, as_published)(factors, y, s2)
    torch.testing.assert_close(found.mean, expected.mean, rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(found.variance, expected.variance, rtol=1e-6, atol=1e-7)
    assert found.iterations.tolist() == [6, 6, 6]


def test_the_norms_of_the_columns_matter_as_published_alone(draw):
    factors, _, y, s2 = draw((5, 6), (7, 8))
    gains = [torch.logspace(-1, 1, A.shape[-1], dtype=torch.float64) for A in factors]
    scaled = [A * gain for A, gain in zip(factors, gains, strict=True)]
    for as_published in (False, True):
        net = perturbed(iterations=4, factors=2, as_published=as_published)
        plain, mean = net(factors, y, s2), net(scaled, y, s2).mean * torch.outer(*gains)
        same = (mean - plain.mean).abs().max() < 1e-8 * plain.mean.abs().max()
        assert same != as_published


def test_weights_of_the_first_form_stay_what_they_were():
    net = load_estimator("tools/results/2026-11-23-unfolded-irs.safetensors")
    assert net.architecture["as_published"]
    batch = draw_batch(IRSMIMO(dtype=torch.complex64), (12.0, 12.0), 2, torch.Generator().manual_seed(0))
    found = net(batch.factors, batch.y, batch.noise_variance).mean
    torch.testing.assert_close(
        found.abs().amax((1, 2, 3)), torch.tensor([1201.75, 802.087]), rtol=1e-4, atol=0.0
    )


def test_explained_and_remaining_variance_make_the_prior_variance(draw):
    for columns in ((7, 8), (3, 4)):
        factors, _, y, s2 = draw((5, 6), columns, batch=(2,))
        g = tuple(torch.rand(2, n, dtype=torch.float64) + 0.1 for n in columns)
        state = initial_state(pose(factors, y, s2), g)
        posterior = kronecker_posterior(state)
        prior = torch.einsum("bi,bj->bij", *g).flatten(1)
        torch.testing.assert_close(posterior.explained() + posterior.variance(), prior)


def test_batch_members_do_not_mix(draw):
    factors, _, y, s2 = draw((5, 6), (7, 8), batch=(3,))
    net = perturbed(iterations=4, factors=2)
    together = net(factors, y, s2).mean
    for b in range(3):
        alone = net([A[b] for A in factors], y[b], s2[b]).mean
        torch.testing.assert_close(together[b], alone, rtol=1e-8, atol=1e-10)


def test_scaling_the_data_scales_the_mean(draw):
    """Every learned step is relative to the data's scale."""
    factors, _, y, s2 = draw((5, 6), (7, 8))
    net = perturbed(iterations=4, factors=2)
    torch.testing.assert_close(
        net(factors, 100 * y, 1e4 * s2).mean, 100 * net(factors, y, s2).mean, rtol=1e-6, atol=1e-8
    )


def test_coupling_shares_variance_with_the_neighbours_around_the_circle():
    A = [torch.eye(6, dtype=torch.float64)]
    y = torch.tensor([3.0, 0, 0, 0, 0, 0], dtype=torch.float64)
    net = UnfoldedKroSBL(iterations=1, factors=1, neighbours=1)
    plain = net(A, y, 1e-3).hyperparameters[0]
    with torch.no_grad():
        net.coupling.fill_(0.5)
    coupled = net(A, y, 1e-3).hyperparameters[0] / net(A, y, 1e-3).hyperparameters[0][0]
    assert plain[1] / plain[0] < 1e-3
    torch.testing.assert_close(coupled[[1, 5]], torch.full((2,), 0.5, dtype=torch.float64), atol=1e-3, rtol=0)
    assert coupled[2:5].max() < 1e-3


def test_negative_coupling_counts_as_none_but_can_be_unlearned(draw):
    factors, _, y, s2 = draw((5, 6), (7, 8))
    net = UnfoldedKroSBL(iterations=2, factors=2)
    plain = net(factors, y, s2).mean
    with torch.no_grad():
        net.coupling.fill_(-0.5)
    mean = net(factors, y, s2).mean
    torch.testing.assert_close(mean, plain)
    mean.square().sum().backward()
    assert net.coupling.grad.abs().max() > 0


def test_the_gate_prunes_small_entries_smoothly():
    A = [torch.eye(3, dtype=torch.float64)]
    y = torch.tensor([10.0, 5.0, 0.1], dtype=torch.float64)
    net = UnfoldedKroSBL(iterations=1, factors=1)
    before = net(A, y, 1e-6).hyperparameters[0]
    with torch.no_grad():
        net.gate.fill_(2.0)
    after = net(A, y, 1e-6).hyperparameters[0] / before
    assert after[0] > 0.97
    assert after[1] > 0.9
    assert after[2] < 0.01


def test_every_parameter_has_a_finite_gradient(draw):
    factors, x, y, s2 = draw((5, 6, 4), (7, 8, 3), batch=(2,), dtype=torch.complex128)
    net = perturbed(amount=0.1, iterations=3).double()
    net(factors, y, s2).mean.sub(x).abs().square().sum().backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().max() > 0, name


def test_gradients_are_those_of_differences(draw):
    factors, x, y, s2 = draw((4, 3), (5, 4))
    net = perturbed(amount=0.1, iterations=2, factors=2).double()
    names = [name for name, _ in net.named_parameters()]

    def error(*values):
        estimate = torch.func.functional_call(net, dict(zip(names, values, strict=True)), (factors, y, s2))
        return (estimate.mean - x).square().sum()

    values = [parameter.detach().clone().requires_grad_() for parameter in net.parameters()]
    kept = [
        value.clamp(min=0.05).detach().requires_grad_() if name in ("gate", "coupling") else value
        for name, value in zip(names, values, strict=True)
    ]
    assert torch.autograd.gradcheck(error, kept, eps=1e-6, atol=1e-5, rtol=1e-4)


def test_training_lowers_the_error_on_new_channels():
    torch.manual_seed(0)
    net = UnfoldedKroSBL(iterations=4)
    task = EstimationTask(net, SMALL, 0.03, 0.03)
    generator = torch.Generator().manual_seed(1)
    held_out = draw_batch(SMALL, (10.0, 10.0), 200, torch.Generator().manual_seed(2))
    with torch.no_grad():
        before = task.nmse(held_out).mean()
    optimizer = torch.optim.Adam(net.parameters(), lr=0.03)
    for _ in range(25):
        loss = (task.nmse(draw_batch(SMALL, (5.0, 15.0), 64, generator)) + 0.03).log().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        assert task.nmse(held_out).mean() < 0.8 * before


def test_files_keep_the_estimator(tmp_path, draw):
    factors, _, y, s2 = draw((5, 6), (7, 8))
    net = perturbed(iterations=3, factors=2, m_step="am", sweeps=2, neighbours=1)
    save_estimator(net, tmp_path / "net.safetensors")
    loaded = load_estimator(tmp_path / "net.safetensors")
    assert loaded.architecture == net.architecture
    assert torch.equal(loaded(factors, y, s2).mean, net(factors, y, s2).mean)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"iterations": 0}, "iterations"),
        ({"m_step": "em"}, "m_step"),
        ({"neighbours": -1}, "neighbours"),
    ],
)
def test_wrong_architectures_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        UnfoldedKroSBL(**options)


def test_wrong_number_of_factors_is_named(draw):
    factors, _, y, s2 = draw((5, 6), (7, 8))
    with pytest.raises(ValueError, match="factors must hold 3"):
        UnfoldedKroSBL()(factors, y, s2)


def test_an_unknown_noise_variance_is_refused(draw):
    factors, _, y, _ = draw((5, 6), (7, 8))
    with pytest.raises(ValueError, match="noise_variance must be given"):
        UnfoldedKroSBL(factors=2)(factors, y, None)


def test_wrong_files_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="nothing"):
        load_estimator(tmp_path / "nothing.safetensors")
    path = tmp_path / "text.safetensors"
    path.write_text("no weights")
    with pytest.raises(ValueError, match="text"):
        load_estimator(path)
