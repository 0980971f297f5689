"""Functions on a GPU replayed as CUDA graphs: one launch instead of hundreds."""

from collections import OrderedDict, deque
from collections.abc import Callable, Hashable
from functools import lru_cache
from threading import Lock
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from ..dispatch.operator import unobserved

T = TypeVar("T")
CAPACITY, REMEMBERED = 8, 64
_capturing = Lock()  # PyTorch records one graph at a time


class Graph:
    """function(*tensors), recorded once for inputs of these shapes and dtypes and replayed for any others of them.

    The function must do the same work whatever the numbers are and not wait for the GPU. It runs once before it is
    recorded, so that nothing is compiled, tuned or loaded meanwhile. Its result is any nest of tensors in tuples,
    lists and dicts. Calls may come from any stream, from one thread at a time.

    pool: the graph whose memory this one shares; calls of the two take turns.
    """

    def __init__(self, function: Callable[..., Any], *tensors: Tensor, pool: "Graph | None" = None) -> None:
        self.inputs = [torch.empty_like(x).copy_(x) for x in tensors]
        self.graph = torch.cuda.CUDAGraph()
        self.free: torch.cuda.Event = torch.cuda.Event() if pool is None else pool.free
        memory = None if pool is None else pool.graph.pool()
        stream = _side_stream(self.inputs[0].device)
        with _capturing:
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):
                function(*self.inputs)
            with torch.cuda.graph(self.graph, memory, stream, capture_error_mode="thread_local"):
                outputs = function(*self.inputs)
        self.outputs, self.structure = pytree.tree_flatten(outputs)
        self.free.record()

    def __call__(self, *tensors: Tensor) -> Any:
        with torch.cuda.device(self.inputs[0].device):
            self.free.wait()
            for own, given in zip(self.inputs, tensors, strict=True):
                own.copy_(given)
            self.graph.replay()
            outputs = [x.clone() if isinstance(x, Tensor) else x for x in self.outputs]
            self.free.record()
        return pytree.tree_unflatten(outputs, self.structure)


@lru_cache(None)
def _side_stream(device: torch.device) -> torch.cuda.Stream:
    """One for all recordings: libraries keep a workspace for each stream that they have seen."""
    return torch.cuda.Stream(device)


class Graphs:
    """The graphs of a network's functions, the `capacity` used last, or none; they share one pool of memory.

    A function's first call at shapes that are new runs as it is, the second records a graph, and every other
    replays it. What cannot be replayed runs as it is: tensors off the GPU or of a subclass, gradients, autocast,
    transforms, a graph that is being recorded, and what finds no memory for a graph.

    >>> graphs = Graphs()
    >>> graphs("double", lambda x: 2 * x, torch.ones(2)), len(graphs)  # on a CPU there is none
    (tensor([2., 2.]), 0)
    """

    def __init__(self, capacity: int = CAPACITY) -> None:
        self.capacity = capacity
        self.clear()

    def clear(self) -> None:
        """Give the graphs' memory back, as after the weights have moved."""
        self.lock = Lock()
        self.recorded: OrderedDict[Hashable, Graph] = OrderedDict()
        self.seen: deque[Hashable] = deque(maxlen=REMEMBERED)

    def __len__(self) -> int:
        return len(self.recorded)

    def __getstate__(self) -> dict[str, int]:
        return {"capacity": self.capacity}  # a copy records its own

    def __setstate__(self, state: dict[str, int]) -> None:
        self.__init__(**state)  # type: ignore[misc]

    def __call__(self, name: Hashable, function: Callable[..., T], *tensors: Tensor) -> T:
        """function(*tensors); `name` tells it from the other functions, and nothing else may change its work."""
        if not self.capacity or not replayable(tensors):
            return function(*tensors)
        key = (name, *_modes(), *((x.shape, x.stride(), x.dtype, x.device) for x in tensors))
        with self.lock:
            graph = self.recorded.get(key)
            if graph is None:
                graph = self._record(function, tensors) if key in self.seen else None
                if graph is None:
                    result = function(*tensors)
                    self.seen.append(key)
                    return result
                self.recorded[key] = graph
            self.recorded.move_to_end(key)
            return graph(*tensors)

    def _record(self, function: Callable[..., Any], tensors: tuple[Tensor, ...]) -> Graph | None:
        while len(self.recorded) >= self.capacity:
            self.recorded.popitem(last=False)[1].free.synchronize()
        device = tensors[0].device
        pool = next((graph for graph in self.recorded.values() if graph.inputs[0].device == device), None)
        try:
            with torch.inference_mode(False), torch.no_grad(), torch.cuda.device(device):
                return Graph(function, *tensors, pool=pool)
        except torch.cuda.OutOfMemoryError:
            return None


def replayable(tensors: tuple[Tensor, ...]) -> bool:
    """Whether a graph may stand for a call with these tensors."""
    return (
        all(x.is_cuda for x in tensors)
        and unobserved(tensors)
        and not torch.is_autocast_enabled("cuda")
        and not torch.cuda.is_current_stream_capturing()
    )


def _modes() -> tuple[bool, ...]:
    """What else decides which kernels a function launches."""
    cudnn, products = torch.backends.cudnn, torch.backends.cuda.matmul
    return cudnn.enabled, cudnn.allow_tf32, cudnn.deterministic, cudnn.benchmark, products.allow_tf32
