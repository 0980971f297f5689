"""The main job on generated scenes: train a small RPCANet++, evaluate it, run it on a picture. `make demo`.

Everything goes to runs/demo, which a new demo replaces.
"""

import shutil
from dataclasses import asdict
from pathlib import Path

from unfoldkit.common.console import described_parser, one_line_errors
from unfoldkit.tools.evaluate import Evaluation, evaluate, show
from unfoldkit.tools.predict import Prediction, predict, write_picture
from unfoldkit.tools.train import Configuration, configuration_from, parser, train

OUT = Path("runs/demo")
CONFIG = Path(__file__).parent / "configs" / "demo.yaml"


def main() -> None:
    shutil.rmtree(OUT, ignore_errors=True)
    configuration = configuration_from(parser().parse_args([f"--config={CONFIG}"]))
    before = save_untrained(configuration)
    train(configuration, OUT)
    weights = OUT / "best.safetensors"
    for name, path in (("untrained", before), ("trained", weights)):
        values = evaluate(Evaluation("synthetic", str(path)))
        show(values, f"The {name} network on 80 held-out generated scenes")
    pictures = save_scenes(OUT / "scenes", configuration.data.size, configuration.recipe.seed)
    predict(Prediction([str(pictures)], str(weights), str(OUT / "predictions"), panels=True))
    print(
        f"""
Weights      {weights} (best), {OUT / "last.safetensors"}
Pictures     {pictures}/*.png
Results      {OUT / "predictions"}/*_mask.png, *_probability.png, *_panel.png
             open them in any viewer; a panel shows input, probability, background, object
TensorBoard  .venv/bin/tensorboard --logdir {OUT}
             then open http://localhost:6006
Your turn    .venv/bin/python tools/predict.py --weights {weights} PICTURE.png --out runs/mine"""
    )


def save_untrained(configuration: Configuration) -> Path:
    import torch

    from unfoldkit import rpcanet

    torch.manual_seed(configuration.recipe.seed)
    OUT.mkdir(parents=True)
    path = OUT / "untrained.safetensors"
    rpcanet.save_weights(rpcanet.build(**asdict(configuration.network)), path, asdict(configuration))
    return path


def save_scenes(folder: Path, size: int, seed: int, count: int = 4) -> Path:
    """Some held-out scenes as picture files."""
    from unfoldkit.datasets import open_pictures

    folder.mkdir(parents=True)
    scenes = open_pictures("synthetic", "test", count=count, size=size, seed=seed)
    for index in range(count):
        write_picture(folder / f"{scenes[index].name}.png", scenes[index].image)
    return folder


if __name__ == "__main__":
    described_parser("demo.py", __doc__).parse_args()
    with one_line_errors("demo.py"):
        main()
