"""A training run as TensorBoard shows it: what is logged, that it is right, and that watching changes nothing."""

import sys

import lightning as L
import numpy as np
import pytest
import torch
from lightning.pytorch.loggers import TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.testing import assert_close

from unfoldkit import rpcanet
from unfoldkit.datasets import SegmentationDataset, SyntheticScenes
from unfoldkit.datasets.datamodule import SegmentationData
from unfoldkit.rpcanet.inside.interpretation import interior_measures, look_inside
from unfoldkit.rpcanet.metrics import PixelCurves
from unfoldkit.rpcanet.training.task import SegmentationTask
from unfoldkit.rpcanet.training.watching import Watch


def test_pixel_curves_count_by_definition():
    random = torch.Generator().manual_seed(0)
    probability = torch.randint(0, 257, (6, 1, 9, 7), generator=random) / 256
    mask = (torch.rand(6, 1, 9, 7, generator=random) < 0.2).float()
    curves = PixelCurves(bins=16)
    for part in (slice(0, 2), slice(2, 6)):
        curves.update(probability[part], mask[part])
    rates = curves.compute()
    p, m = probability.numpy(), mask.numpy() > 0
    for i, threshold in enumerate(np.arange(16) / 16):
        predicted = p >= threshold
        tp, fp = (predicted & m).sum(), (predicted & ~m).sum()
        assert (rates["tp"][i], rates["fp"][i]) == (tp, fp)
        assert (rates["fn"][i], rates["tn"][i]) == (m.sum() - tp, (~m).sum() - fp)
        assert_close(rates["precision"][i].item(), tp / (tp + fp), rtol=1e-6, atol=0)
        assert_close(rates["false_positive_rate"][i].item(), fp / (~m).sum(), rtol=1e-6, atol=0)


def train(out, epochs, callbacks):
    """A short run of a network of two stages; returns it."""
    L.seed_everything(3, verbose=False)
    net = rpcanet.build("rpcanet++", stages=2, channels=4)
    data = SegmentationData(
        SegmentationDataset(SyntheticScenes("train", count=8, size=32), size=32, augment=True),
        SegmentationDataset(SyntheticScenes("val", count=3, size=32), size=32),
        batch_size=4,
        workers=0,
    )
    trainer = L.Trainer(
        accelerator="cpu",
        max_epochs=epochs,
        callbacks=callbacks,
        logger=TensorBoardLogger(out, name="", version="tensorboard", default_hp_metric=False),
        num_sanity_val_steps=1,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        log_every_n_steps=1,
    )
    trainer.fit(SegmentationTask(net, learning_rate=0.005), data)
    return net


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    out = tmp_path_factory.mktemp("run")
    net = train(out, 4, [Watch({"network": {"stages": 2}, "recipe": {"seed": 3}}, budget=0.0)])
    sizes = {"scalars": 0, "images": 0, "histograms": 0, "tensors": 0}
    return net, EventAccumulator(str(out / "tensorboard"), sizes).Reload()


def test_everything_is_logged(run):
    net, events = run
    tags = events.Tags()
    scalars, parameters = set(tags["scalars"]), list(net.named_parameters())
    for measure in ("effective_rank", "energy", "sparsity", "fidelity", "contrast", "epsilon"):
        assert {f"{measure}/stage_1", f"{measure}/stage_2"} <= scalars
    assert {"memory_change/stage_2", "effective_rank/picture", "watch/share_of_time"} <= scalars
    losses = ("loss", "soft_iou", "fidelity")
    assert {f"{part}/{name}" for part in ("train", "val") for name in losses} <= scalars
    assert {"train/learning_rate", "val/iou", "val/auc", "final/iou", "final/auc"} <= scalars
    assert set(tags["images"]) == {
        "val/input_mask_probability_background_object",
        "val/curves",
        "inside/spectrum",
    }
    assert sum(tag.startswith("weights/") for tag in tags["histograms"]) == len(parameters)
    assert sum(tag.startswith("gradients/") for tag in tags["histograms"]) == len(parameters)
    assert tags["graph"]
    assert "val/pixels" in tags["tensors"]


def test_hyper_parameters_stand_beside_the_final_metrics(run):
    _, events = run
    plugins = events.PluginTagToContent("hparams")
    assert {"_hparams_/experiment", "_hparams_/session_start_info"} <= plugins.keys()
    assert b"network/stages" in plugins["_hparams_/session_start_info"]
    assert events.Scalars("final/iou")[-1].value == events.Scalars("val/iou")[-1].value


def test_the_last_look_is_at_the_network_as_trained(run):
    net, events = run
    samples = SegmentationDataset(SyntheticScenes("val", count=3, size=32), size=32)
    image = torch.stack([samples[i].image for i in range(3)])
    with torch.no_grad():
        measures = interior_measures(image, look_inside(net.eval(), image))
    for k in (1, 2):
        logged = {
            m: events.Scalars(f"{m}/stage_{k}")[-1].value for m in ("effective_rank", "sparsity", "epsilon")
        }
        assert_close(
            logged["effective_rank"], measures["effective_rank"][:, k].mean().item(), rtol=1e-5, atol=0
        )
        assert_close(logged["sparsity"], measures["sparsity"][:, k - 1].mean().item(), rtol=1e-5, atol=0)
        assert_close(logged["epsilon"], net.stages[k - 1].oem.epsilon.item(), rtol=1e-6, atol=0)


def test_without_a_budget_only_the_first_and_the_last_look_are_taken(run):
    _, events = run
    assert [event.step for event in events.Scalars("watch/share_of_time")] == [2, 8]
    assert len(events.Scalars("val/iou")) == 4


def test_every_look_within_the_budget_is_taken(tmp_path):
    interval = sys.getswitchinterval()
    train(tmp_path, 3, [Watch({}, budget=10.0)])
    assert sys.getswitchinterval() == pytest.approx(interval)  # shorter meanwhile
    events = EventAccumulator(str(tmp_path / "tensorboard"), {"scalars": 0}).Reload()
    assert [event.step for event in events.Scalars("epsilon/stage_1")] == [2, 4, 6]


def test_watching_changes_no_weight(run, tmp_path):
    watched, _ = run
    alone = train(tmp_path, 4, [])
    for (name, one), other in zip(alone.state_dict().items(), watched.state_dict().values(), strict=True):
        assert torch.equal(one, other), name


def test_a_compiled_network_is_looked_into_all_the_same():
    net = rpcanet.build("rpcanet++", stages=2, channels=4).eval()
    image = torch.rand(1, 1, 16, 16)
    with torch.no_grad():
        plain = interior_measures(image, look_inside(net, image))
        for stage in net.stages:
            stage.compile(backend="eager")
        net(image)
        compiled = interior_measures(image, look_inside(net, image))
    assert plain.keys() == compiled.keys()
    assert_close(plain["contrast"], compiled["contrast"])
