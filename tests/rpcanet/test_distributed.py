"""What processes that share a batch compute is what one computes of all of it."""

# mypy: disallow-untyped-defs=False, disallow-incomplete-defs=False

from copy import deepcopy

import torch
from torch import nn
from two_processes import said_by_two

DTYPES = {  # of the norm and of its input, and how far from double precision
    "float64": (torch.float64, torch.float64, 1e-12),
    "float32": (torch.float32, torch.float32, 1e-5),
    "mixed": (torch.float32, torch.bfloat16, 2e-2),
    "bfloat16": (torch.bfloat16, torch.bfloat16, 4e-2),
}
WORKER = """
from unfoldkit.rpcanet.training.distributed import average, over_processes

found = []
for norm, x, weight in torch.load(data, weights_only=False):
    over_processes(norm)
    x, weight = (part.chunk(2)[int(rank)] for part in (x, weight))
    out = norm(x.requires_grad_())
    (out * weight).sum().backward()
    gradients = [parameter.grad for parameter in norm.parameters()]
    average(gradients)
    found.append((out.detach(), x.grad, gradients, list(norm.buffers())))
torch.save(found, f"{data}-{rank}")
"""


def test_a_batch_norm_sees_the_batches_of_all_processes(tmp_path):
    torch.manual_seed(0)
    cases = []
    for of_norm, of_input, _ in DTYPES.values():
        norm = nn.Sequential(nn.BatchNorm2d(3, dtype=of_norm))
        x, weight = 2 * torch.randn(4, 3, 5, 7, dtype=of_input) + 3, torch.randn(4, 3, 5, 7, dtype=of_input)
        cases.append((norm, x, weight))
    torch.save(cases, tmp_path / "data.pt")
    said_by_two(WORKER, tmp_path / "data.pt")
    halves = zip(*(torch.load(tmp_path / f"data.pt-{rank}") for rank in "01"), strict=True)

    for (norm, x, weight), (first, second), (*_, bound) in zip(cases, halves, DTYPES.values(), strict=True):
        assert first[0].dtype == x.dtype
        layer, x, weight = deepcopy(norm).double(), x.double().requires_grad_(), weight.double()
        expected = layer(x)
        (expected * weight).sum().backward()
        whole = [(torch.cat((first[0], second[0])), expected), (torch.cat((first[1], second[1])), x.grad)]
        parameters = zip(first[2], (p.grad / 2 for p in layer.parameters()), strict=True)
        for found, wanted in (*whole, *parameters, *zip(first[3], layer.buffers(), strict=True)):
            torch.testing.assert_close(found.double(), wanted.detach().double(), rtol=bound, atol=bound)
