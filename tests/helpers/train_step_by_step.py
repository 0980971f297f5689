"""tools/train.py whose steps are those of GPUs, on a CPU too, but never replayed as CUDA graphs."""

from unittest.mock import patch

from unfoldkit.rpcanet.training import graphed, run
from unfoldkit.tools import train


def main() -> None:
    with patch.object(run, "graphed", lambda *_: True), patch.object(graphed, "GRAPHS", 0):
        train.main()


if __name__ == "__main__":
    main()
