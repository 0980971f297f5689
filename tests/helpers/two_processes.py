"""Code run by two processes of one group."""

import subprocess
import sys
from pathlib import Path

JOIN = """
import sys, torch
meeting, rank, data = sys.argv[1:]
torch.distributed.init_process_group("gloo", init_method=f"file://{meeting}", rank=int(rank), world_size=2)
"""
LEAVE = """
torch.distributed.destroy_process_group()
"""


def said_by_two(code: str, data: Path) -> list[str]:
    """What each prints, of `code` that knows its `rank`, "0" or "1", and `data`; they meet beside that file."""
    arguments = [sys.executable, "-c", JOIN + code + LEAVE, f"{data}-meeting"]
    workers = [
        subprocess.Popen([*arguments, rank, str(data)], stdout=subprocess.PIPE, text=True) for rank in "01"
    ]
    said = [worker.communicate(timeout=120)[0] for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0]
    return said
