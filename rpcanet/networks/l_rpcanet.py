"""L-RPCANet: a light RPCANet that tells noise from objects, with 0.2 to 0.5 M parameters."""

import torch
from torch import Tensor, nn

from ..modules import LightBAM, LightIRM, LightOEM, NoiseStep
from .unfolding import StageOutput, UnfoldedNetwork


class LRPCANetStage(nn.Module):
    """One alternation of robust PCA with noise.

        B = LightBAM(D' - O' - N'),   O = LightOEM(O' + D' - B - N')
        N = NoiseStep(N' + D' - B - O),   D = LightIRM(B + O + N)

    N' is the noise of the stage before where `carry_noise`, else 0. N is handed on in any case.
    """

    def __init__(self, channels: int, narrow: int, noise_layers: int, carry_noise: bool) -> None:
        super().__init__()
        self.carry_noise = carry_noise
        self.bam = LightBAM(channels, narrow)
        self.oem = LightOEM(channels, narrow)
        self.noise = NoiseStep(channels, narrow, noise_layers)
        self.irm = LightIRM(channels)

    def forward(
        self, restoration: Tensor, object_: Tensor, noise: Tensor | None
    ) -> tuple[StageOutput, Tensor]:
        before = noise if self.carry_noise and noise is not None else torch.zeros_like(restoration)
        background = self.bam(restoration - object_ - before)
        object_ = self.oem(object_ + restoration - background - before)
        noise = self.noise(before + restoration - background - object_)
        return StageOutput(background, object_, self.irm(background + object_ + noise)), noise


class LRPCANet(UnfoldedNetwork):
    """L-RPCANet: splits a picture into a low-rank background, sparse objects and noise.

    Solves  D = B + O + N  by K unfolded alternations like those of `RPCANet`, with a step for the noise N of their
    own. Inside its steps features are narrow, and all of them end in squeeze and excitation.

    stages: K, 6 as published.  channels: C, at the ends of each step, 32 as published.
    mean, std: the normalisation of its input, in grey levels of 0 to 255.
    narrow: c, inside; 16 or 4 as published.  noise_layers: n of `NoiseStep`; 6 or 3 as published.
    carry_noise: whether a stage starts from the noise of the stage before. As published it does not: each starts
        from N = 0. With it, the network is a variant of this project's own.

    With return_stages, `Decomposition.noises` holds every N_k.

    Source: L-RPCANet, a lightweight RPCANet for infrared small target detection; its published weights.

    >>> net = LRPCANet().eval()
    >>> sum(p.numel() for p in net.parameters())
    475188
    >>> decomposition = net(torch.rand(1, 1, 30, 41), return_stages=True)
    >>> decomposition.object.sigmoid().shape, len(decomposition.stages), len(decomposition.noises)
    (torch.Size([1, 1, 30, 41]), 6, 6)
    """

    def __init__(
        self,
        stages: int = 6,
        channels: int = 32,
        mean: float = 0.0,
        std: float = 255.0,
        *,
        narrow: int = 16,
        noise_layers: int = 6,
        carry_noise: bool = False,
    ) -> None:
        for name, value, least in (
            ("channels", channels, 1),
            ("narrow", narrow, 1),
            ("noise_layers", noise_layers, 0),
        ):
            if value < least:
                raise ValueError(f"{name} must be at least {least}, got {value}")
        if not isinstance(carry_noise, bool):
            raise ValueError(f"carry_noise must be true or false, got {carry_noise!r}")
        stack = [LRPCANetStage(channels, narrow, noise_layers, carry_noise) for _ in range(stages)]
        super().__init__(stack, channels, mean, std)
        self.narrow, self.noise_layers, self.carry_noise = narrow, noise_layers, carry_noise

    @property
    def architecture(self) -> dict[str, int | float]:
        """The arguments that build this network again."""
        own = {"narrow": self.narrow, "noise_layers": self.noise_layers, "carry_noise": self.carry_noise}
        return {**super().architecture, **own}
