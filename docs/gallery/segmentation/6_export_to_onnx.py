"""
Export to ONNX and run it
=========================

A network leaves Python as an ONNX file of any batch, height and width. It is checked against the network when
it is written. Needs ``pip install 'unfoldkit[export]'``.
"""

from pathlib import Path
from tempfile import TemporaryDirectory

import matplotlib.pyplot as plt
import onnxruntime
import torch

from unfoldkit import datasets, rpcanet

torch.manual_seed(0)
room = TemporaryDirectory()
weights = Path(room.name) / "net.safetensors"
rpcanet.save_weights(rpcanet.RPCANet(stages=2, channels=8).eval(), weights)  # or weights of unfoldkit train

file, difference = rpcanet.export_weights(
    rpcanet.Export(str(weights), "onnx", str(weights.with_suffix(".onnx")))
)
print(
    f"{file.name}: {file.stat().st_size / 1e6:.2f} MB, differs by {difference:.0e} of a plane's largest value"
)

# %%
# ONNX Runtime knows nothing of PyTorch. What must be done before and after stands in the file.

session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
for key, value in session.get_modelmeta().custom_metadata_map.items():
    print(f"{key}: {value}")

# %%
# The same picture through both.

net = rpcanet.load_weights(weights).eval()
picture = datasets.SyntheticScenes("test", count=1, size=64)[0]
image = datasets.normalise(picture.image, net.mean, net.std)[None]
outputs = session.run(None, {session.get_inputs()[0].name: image.numpy()})
names = [output.name for output in session.get_outputs()]
with torch.inference_mode():
    here = net(image)
print(dict(zip(names, (output.shape for output in outputs), strict=True)))

figure, axes = plt.subplots(
    1,
    3,
    figsize=(8, 3),
    layout="constrained",
    num="Three panels: the picture, the background of PyTorch and the background of ONNX Runtime; "
    "the last two agree.",
)
background = outputs[names.index("background")][0, 0]
panels = {
    "picture": picture.image,
    "background, PyTorch": here.background[0, 0],
    "background, ONNX Runtime": background,
}
for axis, (title, panel) in zip(axes, panels.items(), strict=True):
    axis.imshow(panel, cmap="gray")
    axis.set(title=title, xticks=[], yticks=[])
