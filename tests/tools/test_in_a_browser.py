"""What a user sees: TensorBoard on the logs of a short run, and the report, in headless Chromium."""

import json
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from urllib.parse import quote

import cv2
import numpy as np
import pytest

from unfoldkit.rpcanet import Interpretation, interpret, train
from unfoldkit.tools.train import configuration_from, parser

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
OFFLINE = ("--host-resolver-rules=MAP * ~NOTFOUND", "--proxy-server=127.0.0.1:9")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")


def browse(profile, url, *options):
    """What Chromium prints for the page at `url`, after thirty seconds of its own time at most."""
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={profile}"]
    command += ["--virtual-time-budget=30000", *options, url]
    return subprocess.run(command, capture_output=True, text=True, timeout=100, check=True).stdout


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    out = tmp_path_factory.mktemp("run")
    options = ["--network.stages=2", "--network.channels=4", "--data.workers=0", "--machine.accelerator=cpu"]
    options += ["--data.size=32", "--data.train_count=8", "--data.validation_count=2", "--recipe.epochs=2"]
    train(configuration_from(parser().parse_args(options)), out)
    return out


@pytest.fixture(scope="module")
def tensorboard(run):
    """Address of a TensorBoard server on the logs of the run."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(run), "--host", "127.0.0.1"]
    server = subprocess.Popen([*command, "--port", str(port)], stderr=subprocess.DEVNULL)
    address = f"http://127.0.0.1:{port}"
    try:
        wait_for(f"{address}/data/plugin/scalars/tags", server)
        yield address
    finally:
        server.terminate()
        server.wait(20)


def wait_for(url, server, seconds=60):
    """Until the server has read the logs to their end, where the final metrics stand."""
    end = time.monotonic() + seconds
    while time.monotonic() < end and server.poll() is None:
        try:
            if b"final/iou" in urllib.request.urlopen(url, timeout=5).read():
                return
        except OSError:
            pass
        time.sleep(0.2)
    pytest.fail("TensorBoard does not answer with the run")


def test_tensorboard_shows_the_named_charts_and_images(tensorboard, tmp_path):
    charts = ["epsilon/stage_1", "sparsity/stage_2", "train/learning_rate", "val/iou"]
    pictures = ["inside/spectrum", "val/curves", "val/input_mask_probability_background_object"]
    shown = quote("|".join(f"^{tag}$" for tag in charts + pictures))
    url = f"{tensorboard}/?tagFilter={shown}#timeseries"
    for _ in range(8):  # now and then Chromium leaves before the last cards are drawn
        page = browse(tmp_path, url, "--window-size=1400,3000", "--dump-dom")
        missing = [tag for tag in charts + pictures if f'title="{tag}"' not in page]
        sources = re.findall(r'<img[^>]*src="(data/plugin/[^"]*)"', page)
        if not missing and len(sources) == len(pictures):
            break
    assert not missing
    assert len(re.findall(r"<line-chart[ >]", page)) == len(charts)
    assert len(sources) == len(pictures)
    for source in sources:
        content = urllib.request.urlopen(f"{tensorboard}/{source.replace('&amp;', '&')}").read()
        assert cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR).std() > 1


def test_tensorboard_serves_curves_graph_histograms_and_hyper_parameters(tensorboard):
    def answer(path):
        return json.loads(urllib.request.urlopen(f"{tensorboard}/data/plugin/{path}").read())

    [tags] = answer("pr_curves/tags").values()
    assert "val/pixels" in tags
    [histograms] = answer("histograms/tags").values()
    assert {"weights/0/oem.epsilon", "gradients/1/oem.epsilon"} <= set(histograms)
    [graph] = answer("graphs/info").values()
    assert graph["run_graph"]
    request = urllib.request.Request(
        f"{tensorboard}/data/plugin/hparams/experiment", b"{}", {"Content-Type": "application/json"}
    )
    experiment = json.loads(urllib.request.urlopen(request).read())
    assert "network/stages" in {info["name"] for info in experiment["hparamInfos"]}
    assert "final/iou" in {info["name"]["tag"] for info in experiment["metricInfos"]}


def test_the_report_opens_without_a_network(run, tmp_path):
    rng = np.random.default_rng(0)
    cv2.imwrite(str(tmp_path / "scene.png"), rng.integers(0, 255, (32, 32), dtype=np.uint8))
    weights = str(run / "best.safetensors")
    report = interpret(Interpretation(str(tmp_path), weights=weights, out=str(tmp_path / "out")))
    picture = tmp_path / "phone.png"
    browse(
        tmp_path / "profile", report.as_uri(), *OFFLINE, "--window-size=500,3000", f"--screenshot={picture}"
    )
    seen = cv2.imread(str(picture))
    coloured = (seen.max(2).astype(int) - seen.min(2)) > 40  # text and lines are grey
    assert 0.03 < coloured.mean() < 0.9
    assert not coloured[:, -5:].any()  # nothing is wider than the screen
    page = browse(tmp_path / "profile", report.as_uri(), *OFFLINE, "--dump-dom")
    for name in ("spectrum", "sparsity", "profiles", "scene"):
        assert f'<figure id="{name}"><img' in page
