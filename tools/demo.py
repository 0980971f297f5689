"""The main job on generated scenes: train a small RPCANet++, evaluate it, run it on pictures. `make demo`.

    python tools/demo.py

Beside it a network that comes with the package, trained on SIRST, is run on scenes of its own size.
Everything goes to runs/demo, which a new demo replaces.
"""

import shutil
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from unfoldkit.common.console import described_parser, one_line_errors
from unfoldkit.rpcanet.inference.options import Evaluation, Prediction
from unfoldkit.tools.evaluate import show
from unfoldkit.tools.train import configuration_from, parser

if TYPE_CHECKING:
    from unfoldkit.rpcanet.training.configuration import Configuration

OUT = Path("runs/demo")
ZOO = "rpcanet++-s3-sirst"
CONFIG = Path(__file__).parent / "configs" / "demo.yaml"


def demonstrate() -> None:
    from unfoldkit import rpcanet

    shutil.rmtree(OUT, ignore_errors=True)
    configuration = configuration_from(parser().parse_args([f"--config={CONFIG}"]))
    before = save_untrained(configuration)
    rpcanet.train(configuration, OUT)
    weights = OUT / "best.safetensors"
    for name, path in (("untrained", before), ("trained", weights)):
        evaluated = rpcanet.evaluate_data_set(Evaluation("synthetic", str(path)))
        show(evaluated.values, f"The {name} network on 80 held-out generated scenes")
    pictures = save_scenes(OUT / "scenes", configuration.data.size, configuration.recipe.seed)
    rpcanet.predict(Prediction([str(pictures)], str(weights), str(OUT / "predictions"), panels=True))
    scenes = save_scenes(OUT / "scenes_of_256", 256, configuration.recipe.seed)
    rpcanet.predict(Prediction([str(scenes)], f"zoo:{ZOO}", str(OUT / "zoo"), panels=True))
    print(
        f"""
Weights      {weights} (best), {OUT / "last.safetensors"}
Pictures     {pictures}/*.png
Results      {OUT / "predictions"}/*_mask.png, *_probability.png, *_panel.png
             open them in any viewer; a panel shows input, probability, background, object
Zoo          {OUT / "zoo"}/*_panel.png, the same for scenes of 256x256 and zoo:{ZOO}
TensorBoard  .venv/bin/tensorboard --logdir {OUT}
             then open http://localhost:6006
Your turn    .venv/bin/unfoldkit predict --weights {weights} PICTURE.png --out runs/mine"""
    )


def save_untrained(configuration: "Configuration") -> Path:
    import torch

    from unfoldkit import rpcanet

    torch.manual_seed(configuration.recipe.seed)
    network = configuration.network
    OUT.mkdir(parents=True)
    path = OUT / "untrained.safetensors"
    net = rpcanet.build(network.name, stages=network.stages, channels=network.channels)
    rpcanet.save_weights(net, path, asdict(configuration))
    return path


def save_scenes(folder: Path, size: int, seed: int, count: int = 4) -> Path:
    """Some held-out scenes as picture files."""
    from unfoldkit.datasets import open_pictures
    from unfoldkit.rpcanet.inference.prediction import write_picture

    folder.mkdir(parents=True)
    scenes = open_pictures("synthetic", "test", count=count, size=size, seed=seed)
    for index in range(count):
        write_picture(folder / f"{scenes[index].name}.png", scenes[index].image)
    return folder


def main() -> None:
    described_parser("demo.py", __doc__).parse_args()
    with one_line_errors("demo.py"):
        demonstrate()


if __name__ == "__main__":
    main()
