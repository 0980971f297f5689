"""Random numbers that depend on a seed and on what they are for alone, and what is drawn by them, once."""

import hashlib
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Generic, TypeVar

import torch

PIECE = 1000  # trials that are drawn at a time, so that they can be solved while the next are drawn
KEPT_DRAWS = 16  # pieces that a process keeps, for the next estimator or SNR
Draws = TypeVar("Draws")


def trial_generator(seed: int, *stream: int | str) -> torch.Generator:
    """A generator for one purpose of one trial, independent of all others.

    >>> int(torch.randint(1000, (), generator=trial_generator(1, 0))) == int(
    ...     torch.randint(1000, (), generator=trial_generator(1, 0)))
    True
    """
    digest = hashlib.sha256("/".join(map(str, (seed, *stream))).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))


def pieces(trials: range) -> list[range]:
    """Trials as they are drawn.

    >>> pieces(range(200, 2300))
    [range(200, 1200), range(1200, 2200), range(2200, 2300)]
    """
    return [trials[start : start + PIECE] for start in range(0, len(trials), PIECE)]


class drawn_once(Generic[Draws]):  # noqa: N801  # a decorator
    """A function that keeps its last results; a thread that asks for what another one draws waits for it."""

    def __init__(self, draw: Callable[..., Draws]) -> None:
        self.draw, self.lock = draw, threading.Lock()
        self.kept: dict[Any, Future[Draws]] = {}

    def __call__(self, *what: Any) -> Draws:
        with self.lock:
            future = self.kept.get(what)
            if future is not None:
                self.kept[what] = self.kept.pop(what)  # the last asked for is the last to go
            else:
                mine = self.kept[what] = Future()
                if len(self.kept) > KEPT_DRAWS:
                    del self.kept[next(iter(self.kept))]
        if future is not None:
            return future.result()
        try:
            mine.set_result(self.draw(*what))
        except BaseException as error:
            with self.lock:
                self.kept.pop(what, None)
            mine.set_exception(error)
        return mine.result()

    def done(self, *what: Any) -> bool:
        """Whether the call needs no drawing, and no waiting."""
        with self.lock:
            future = self.kept.get(what)
        return future is not None and future.done()
