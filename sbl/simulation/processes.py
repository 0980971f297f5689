"""Where shards are computed: this process, local processes, or a Dask cluster; and where figures are drawn."""

import logging
import os
from collections.abc import Iterator
from concurrent.futures import CancelledError, Executor, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import Any

from .gpus import gpu_threads

WORKER = ["unfoldkit.sbl.simulation.experiments"]  # what the process that workers are forked from imports
PAINTER = ["unfoldkit.sbl.simulation.figures", "scipy.special"]
MOST_PAINTERS = 6
ENDED = (
    "a process of this simulation was killed, or could not start: a script must call it under "
    "`if __name__ == '__main__':`, or with workers=1; finished shards are kept"
)
LOST = "this Dask scheduler was lost; finished shards are kept"


@contextmanager
def executor(workers: int | None, scheduler: str | None, device: str = "cpu") -> Iterator[Executor]:
    """`workers` local processes (1: a thread of this one; None: one a core), or the Dask cluster of `scheduler`.

    On a GPU, threads of this process; None: one for each GPU.
    Raises ValueError where Dask is not installed or no scheduler answers, ConnectionError where it is lost.
    """
    if scheduler is not None:
        with _cluster(scheduler) as executor:
            yield executor
    elif device == "cuda":
        with gpu_threads(workers) as executor:
            yield executor
    elif workers == 1:
        with ThreadPoolExecutor(1) as executor:
            yield executor
    else:
        with _processes(workers, WORKER) as executor:
            yield executor


@contextmanager
def _processes(count: int | None, preloaded: list[str]) -> Iterator[Executor]:
    import multiprocessing

    with ProcessPoolExecutor(count, _context(preloaded), _end_with_parent) as executor:
        try:
            yield executor
        except BrokenProcessPool as error:
            raise RuntimeError(ENDED) from error
        except BaseException:
            for process in multiprocessing.active_children():
                process.terminate()
            raise


@contextmanager
def _cluster(scheduler: str) -> Iterator[Executor]:
    try:
        from distributed import Client
    except ImportError:
        raise ValueError("--scheduler needs Dask: pip install 'unfoldkit[cluster]'") from None
    try:
        client = Client(scheduler, timeout=5)
    except OSError as error:
        raise ValueError(f"no Dask scheduler answers at {scheduler}: {error}") from None
    with _silent("distributed.client"), client:
        try:
            yield client.get_executor()
        except CancelledError:
            raise ConnectionError(f"{scheduler}: {LOST}") from None


@contextmanager
def _silent(name: str) -> Iterator[None]:
    """Nothing of this logger, which tells with tracebacks what is raised here."""
    logger = logging.getLogger(name)
    before = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        logger.setLevel(before)


@contextmanager
def painters(beside: bool) -> Iterator[Executor]:
    """What sums up and draws results: processes `beside` this one, or a thread of it, which get ready at once."""
    from .results import draw

    count = min(os.cpu_count() or 1, MOST_PAINTERS) if beside else 1
    with _processes(count, PAINTER) if beside else ThreadPoolExecutor(1) as executor:
        for _ in range(count):
            executor.submit(draw, "rehearse")
        yield executor


def _context(preloaded: list[str]) -> Any:
    """Processes that are forked from one with these modules in it, where the system can."""
    import multiprocessing

    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(preloaded)
    return context


def prepare(preloaded: list[str]) -> None:
    """Let the process that others are forked from import these modules while this one imports PyTorch."""
    if _context(preloaded).get_start_method() != "forkserver":
        return
    from multiprocessing import forkserver

    forkserver.ensure_running()


def _end_with_parent() -> None:
    """A worker leaves Ctrl-C to its parent, and ends where that was killed."""
    import multiprocessing
    import signal
    import threading

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()

    def wait() -> None:
        assert parent is not None
        parent.join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()
