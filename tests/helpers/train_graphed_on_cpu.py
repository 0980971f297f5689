"""tools/train.py whose steps are those of GPUs, run as they are instead of as CUDA graphs, on a CPU."""

from unittest.mock import patch

from unfoldkit.rpcanet.training import graphed, run
from unfoldkit.tools import train


def main() -> None:
    with patch.object(run, "graphed", lambda *_: True), patch.object(graphed, "GRAPHS", 0):
        train.main()


if __name__ == "__main__":
    main()
