"""Reading ahead of the computation and writing behind it, each in a thread."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar

Item = TypeVar("Item")
AT_ONCE = 8  # items read ahead, and results waiting to be written


def ahead(items: Iterable[Item], count: int = AT_ONCE) -> Iterator[Item]:
    """The items in their order, made by a thread that is up to `count` ahead; its error is raised in its turn."""
    iterator, end = iter(items), object()
    with ThreadPoolExecutor(1) as reader:
        coming: deque[Future[Any]] = deque(reader.submit(next, iterator, end) for _ in range(count))
        while (item := coming.popleft().result()) is not end:
            coming.append(reader.submit(next, iterator, end))
            yield item


@contextmanager
def behind(count: int = AT_ONCE) -> Iterator[Callable[..., None]]:
    """A function write(function, *arguments) whose calls a thread makes in order, at most `count` waiting.

    An error of one is raised by a later call, or at the end; those that wait are made whatever happens.
    """
    with ThreadPoolExecutor(1) as writer:
        waiting: deque[Future[Any]] = deque()

        def write(function: Callable[..., Any], *arguments: Any) -> None:
            while waiting and (len(waiting) == count or waiting[0].done()):
                waiting.popleft().result()
            waiting.append(writer.submit(function, *arguments))

        yield write
        for future in waiting:
            future.result()
