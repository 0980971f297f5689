"""Reading ahead and writing behind: everything in its order, nothing lost."""

# mypy: disallow-untyped-defs=False, disallow-incomplete-defs=False

import threading
import time

import pytest
import torch

from unfoldkit.common.checkpoints import Checkpoints
from unfoldkit.common.streaming import ahead, behind


def test_items_come_in_order_and_before_they_are_asked_for():
    made = []
    enough = threading.Event()

    def items():
        for k in range(10):
            made.append(k)
            if k == 4:
                enough.set()
            yield k

    reading = ahead(items(), 4)
    assert next(reading) == 0
    assert enough.wait(10)  # 4 more are made while the first is in use
    assert list(reading) == list(range(1, 10))
    assert made == list(range(10))


def test_no_more_is_read_than_asked():
    made = []
    reading = ahead((made.append(k) for k in range(100)), 3)
    next(reading)
    reading.close()
    assert len(made) <= 4


def test_an_error_comes_in_its_turn():
    def items():
        yield 1
        raise ValueError("the second is broken")

    reading = ahead(items())
    assert next(reading) == 1
    with pytest.raises(ValueError, match="the second is broken"):
        next(reading)


def test_calls_are_made_in_order_before_the_end():
    written = []
    with behind(3) as write:
        for k in range(20):
            write(written.append, k)
    assert written == list(range(20))


def test_what_waits_is_written_though_the_computation_fails():
    written = []

    def compute():
        with behind() as write:
            write(written.append, 1)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        compute()
    assert written == [1]


def test_a_write_that_fails_is_raised():
    def fail():
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"), behind() as write:
        write(fail)


def test_a_failed_write_is_raised_by_the_next():
    def fail():
        raise OSError("disk full")

    with behind() as write:
        write(fail)
        time.sleep(0.1)
        with pytest.raises(OSError, match="disk full"):
            write(print)


def test_a_checkpoint_is_as_it_was_at_the_call(tmp_path):
    weights, checkpoints = torch.zeros(3), Checkpoints()
    checkpoints.save_checkpoint({"state": {"weights": weights}, "epoch": 2}, tmp_path / "new" / "last.ckpt")
    weights += 1
    checkpoints.teardown()
    loaded = checkpoints.load_checkpoint(tmp_path / "new" / "last.ckpt")
    assert loaded["epoch"] == 2
    assert loaded["state"]["weights"].tolist() == [0, 0, 0]


def test_a_checkpoint_after_the_trainers_end_is_there_at_once(tmp_path):
    checkpoints = Checkpoints()
    checkpoints.teardown()
    checkpoints.save_checkpoint({"epoch": 2}, tmp_path / "last.ckpt")
    assert checkpoints.load_checkpoint(tmp_path / "last.ckpt") == {"epoch": 2}
