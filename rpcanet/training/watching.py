"""What happens inside a network while it trains, for TensorBoard."""

import sys
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from copy import deepcopy
from functools import partial
from typing import Any

import lightning as L
import torch
from lightning.pytorch.loggers import TensorBoardLogger
from matplotlib.figure import Figure
from torch import Tensor, nn
from torch.utils.tensorboard import SummaryWriter

from unfoldkit.common.figures import rendered

from ..inside.figures import curves_figure, spectrum_figure
from ..inside.interpretation import interior_measures, look_inside
from ..inside.measures import LEADING, Statistics
from ..inside.panels import PARTS, panel
from ..metrics import PixelCurves
from ..networks.unfolding import Decomposition, UnfoldedNetwork
from .task import SegmentationTask

PLANES = ("background", "object", "restoration")
BINS = 64  # of a histogram
SOON = 1e-4  # seconds after which the drawing thread gives way to the one that trains


class Watch(L.Callback):
    """Looks inside the network after validations and logs, over the steps:

        val/input_mask_...      input, mask, probability, background and object of the first validation pictures
        val/pixels              precision over recall (PR curves); val/curves: that and the ROC curve as a picture
        inside/spectrum         singular values of max(B_k, 0) of those pictures
        MEASURE/stage_k         effective_rank, energy (in the leading 5 values), sparsity, fidelity and, where the
                                network has them, contrast and memory_change of those pictures
        epsilon/stage_k         the step size of each object step
        weights/, gradients/    histograms of every parameter and of its last gradient
        watch/share_of_time     how much of the time since the start these looks have taken

    and once the network's graph and, at the end, the hyper-parameters `settings` with the final metrics.

    pictures: how many are looked into.  budget: a look is left out while looks would take more than this share
    of the time; the first and the last are always taken. Pictures, figures and histograms are made in a thread
    beside the training, whose time counts as well: Python runs one thread at a time. Looking changes neither the
    network nor any random number.
    """

    def __init__(self, settings: dict[str, Any], pictures: int = 4, budget: float = 0.03) -> None:
        self.settings, self.pictures, self.budget = settings, pictures, budget
        self.curves = PixelCurves()
        self.start, self.spent, self.before = 0.0, 0.0, -1.0
        self.drawn: list[Future[None]] = []

    def on_train_start(self, trainer: L.Trainer, task: L.LightningModule) -> None:
        self.start, self.spent, self.before = time.perf_counter(), 0.0, -1.0
        self.curves.to(task.device)
        self.drawing = ThreadPoolExecutor(1)
        self.interval = sys.getswitchinterval()
        sys.setswitchinterval(SOON)
        writer = _writer(trainer)
        if writer is not None and isinstance(task, SegmentationTask):
            with self._timed():
                _log_graph(writer, task.net)

    def on_validation_start(self, trainer: L.Trainer, task: L.LightningModule) -> None:
        self.due = trainer.strategy.broadcast(self._due(trainer))
        self.curves.reset()

    def on_validation_batch_end(
        self, trainer: L.Trainer, task: L.LightningModule, outputs: Any, batch: Any, batch_idx: int, *_: Any
    ) -> None:
        if not self.due:
            return
        with self._timed():
            self.curves.update(outputs["object"].sigmoid(), batch.mask)
        if batch_idx == 0:
            first = slice(0, self.pictures)
            self.image, self.mask = batch.image[first], batch.mask[first]
            self.decomposition = Decomposition(*(outputs[part][first] for part in PLANES))

    def on_validation_epoch_end(self, trainer: L.Trainer, task: L.LightningModule) -> None:
        if not self.due or not isinstance(task, SegmentationTask):
            return
        self.before = self.spent
        with self._timed():
            rates = self.curves.compute()
            writer = _writer(trainer)
            if writer is not None:
                step = trainer.global_step
                seen = panel(self.image, self.decomposition, self.mask).cpu()
                self._beside(writer.add_image, "val/" + "_".join(PARTS), seen, step)
                curves = _log_curves(writer, step, rates)
                spectra = _log_stages(writer, step, task.net, self.image)
                for tag, draw in (("val/curves", curves), ("inside/spectrum", spectra)):
                    self._beside(_log_figure, writer, tag, step, draw)
                self._beside(_log_histograms, writer, step, _on_host(task.net))
        if writer is not None:
            writer.add_scalar("watch/share_of_time", self.spent / (time.perf_counter() - self.start), step)

    def on_train_end(self, trainer: L.Trainer, task: L.LightningModule) -> None:
        for figure in self.drawn:
            figure.result()
        if isinstance(trainer.logger, TensorBoardLogger):
            metrics = trainer.callback_metrics.items()
            final = {
                name.replace("val/", "final/"): value for name, value in metrics if name.startswith("val/")
            }
            trainer.logger.log_hyperparams(self.settings, final)

    def teardown(self, trainer: L.Trainer, task: L.LightningModule, stage: str) -> None:
        if self.start:
            self.drawing.shutdown()
            sys.setswitchinterval(self.interval)

    def on_exception(self, trainer: L.Trainer, task: L.LightningModule, exception: BaseException) -> None:
        self.teardown(trainer, task, "fit")

    def _beside(self, function: Callable[..., None], *arguments: Any) -> None:
        def make() -> None:
            start = time.thread_time()
            function(*arguments)
            self.spent += time.thread_time() - start

        self.drawn.append(self.drawing.submit(make))

    def _due(self, trainer: L.Trainer) -> bool:
        first, final = self.before < 0, trainer.current_epoch + 1 == trainer.max_epochs
        elapsed = time.perf_counter() - self.start
        affordable = self.spent + (self.spent - self.before) <= self.budget * elapsed
        return not trainer.sanity_checking and (first or final or affordable)

    @contextmanager
    def _timed(self) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.spent += time.perf_counter() - start


def _writer(trainer: L.Trainer) -> SummaryWriter | None:
    """TensorBoard's, on the process that logs."""
    if not isinstance(trainer.logger, TensorBoardLogger) or not trainer.is_global_zero:
        return None
    return trainer.logger.experiment


class _ObjectAlone(nn.Module):
    def __init__(self, net: UnfoldedNetwork) -> None:
        super().__init__()
        self.net = net

    def forward(self, image: Tensor) -> Tensor:
        return self.net(image).object


def _log_graph(writer: SummaryWriter, net: UnfoldedNetwork) -> None:
    """The writer would trace the network twice, to compare; the graph is shown, never run."""
    shown, image = _ObjectAlone(deepcopy(net).cpu().float().eval()), torch.zeros(1, 1, 32, 32)
    with torch.no_grad(), torch.compiler.set_stance("force_eager"), warnings.catch_warnings():
        warnings.simplefilter("ignore", torch.jit.TracerWarning)
        warnings.filterwarnings("ignore", "The input to trace is already a ScriptModule")
        writer.add_graph(torch.jit.trace(shown, image, check_trace=False), image)


def _log_figure(writer: SummaryWriter, tag: str, step: int, draw: Callable[[], Figure]) -> None:
    writer.add_image(tag, rendered(draw()), step, dataformats="HWC")


def _log_curves(writer: SummaryWriter, step: int, rates: dict[str, Tensor]) -> Callable[[], Figure]:
    """Log what costs little, and return the figure that remains to be drawn."""
    curves = {name: values.cpu().numpy() for name, values in rates.items()}
    writer.add_pr_curve_raw(
        "val/pixels",
        curves["tp"],
        curves["fp"],
        curves["tn"],
        curves["fn"],
        curves["precision"],
        curves["recall"],
        step,
        num_thresholds=len(curves["tp"]),
    )
    return partial(curves_figure, curves)


def _log_stages(
    writer: SummaryWriter, step: int, net: UnfoldedNetwork, image: Tensor
) -> Callable[[], Figure]:
    """Log the measures, and return the figure that remains to be drawn."""
    with torch.no_grad(), _untuned():
        measures = interior_measures(image, look_inside(net, image))
    statistics = Statistics()
    statistics.update(measures)
    mean, std = statistics.mean, statistics.std
    labels = ["$D$", *(f"$B_{{{k + 1}}}$" for k in range(len(net.stages)))]
    spectra = mean["spectrum"].cpu().numpy(), std["spectrum"].cpu().numpy()
    profiles = {name: values.tolist() for name, values in mean.items() if values.ndim == 1}
    profiles["energy"] = mean["energy"][:, LEADING.index(5)].tolist()
    profiles["epsilon"] = [p.item() for name, p in net.named_parameters() if name.endswith("oem.epsilon")]
    for name, values in profiles.items():
        for k, value in enumerate(values, start=len(labels) - len(values)):
            writer.add_scalar(f"{name}/stage_{k}" if k else f"{name}/picture", value, step)
    return partial(spectrum_figure, *spectra, labels)


@contextmanager
def _untuned() -> Iterator[None]:
    """No search for the fastest convolution: nobody else has the shapes of looks."""
    before, torch.backends.cudnn.benchmark = torch.backends.cudnn.benchmark, False
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before


def _on_host(net: nn.Module) -> dict[str, Tensor]:
    """Every parameter and its last gradient, by their tags."""
    found = {}
    for name, parameter in net.named_parameters():
        place = name.removeprefix("stages.").replace(".", "/", 1)
        found[f"weights/{place}"] = parameter.detach()
        if parameter.grad is not None:
            found[f"gradients/{place}"] = parameter.grad
    return {tag: values.to("cpu", torch.float32, copy=True) for tag, values in found.items()}


def _log_histograms(writer: SummaryWriter, step: int, found: dict[str, Tensor]) -> None:
    for tag, values in found.items():
        if values.isfinite().all():
            writer.add_histogram(tag, values, step, bins=BINS)
