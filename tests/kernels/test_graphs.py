"""Replayed graphs: what is recorded, what is not; on a GPU, that they answer as the function does."""

# mypy: disallow-untyped-defs=False, disallow-incomplete-defs=False

import copy
import threading

import pytest
import torch

from unfoldkit.kernels import Graphs
from unfoldkit.kernels.gpu import graphs as room


class Recording:
    """Stands for a graph where there is no GPU: notes that it was recorded and replayed."""

    def __init__(self, function, *tensors, pool=None):
        self.function, self.inputs, self.pool, self.replays = function, list(tensors), pool, 0
        self.free = self

    def synchronize(self):
        pass

    def __call__(self, *tensors):
        self.replays += 1
        return self.function(*tensors)


@pytest.fixture
def recorded(monkeypatch):
    """Graphs that would record on this CPU."""
    monkeypatch.setattr(room, "Graph", Recording)
    monkeypatch.setattr(room, "replayable", lambda tensors: True)
    monkeypatch.setattr(torch.cuda, "device", lambda device: torch.no_grad())
    return Graphs(capacity=2)


def test_the_second_call_at_a_size_records_and_later_ones_replay(recorded):
    for count in range(5):
        assert (
            recorded("double", lambda x: 2 * x, torch.full((3,), float(count))).tolist() == [2.0 * count] * 3
        )
    (graph,) = recorded.recorded.values()
    assert graph.replays == 4


def test_names_sizes_and_types_have_graphs_of_their_own(recorded):
    recorded.capacity = 9
    inputs = (torch.ones(3), torch.ones(4), torch.ones(3).double())
    for _ in range(2):
        for x in inputs:
            recorded("double", lambda x: 2 * x, x)
        assert recorded("halve", lambda x: x / 2, inputs[0]).tolist() == [0.5] * 3
    assert len(recorded) == 4
    assert len({graph.pool for graph in recorded.recorded.values()}) == 2  # none, and the first one's


def test_the_graphs_used_last_are_kept(recorded):
    def use(size):
        recorded("double", lambda x: 2 * x, torch.ones(size))

    for size in (1, 1, 2, 2, 1, 3, 3):
        use(size)
    assert [graph.inputs[0].numel() for graph in recorded.recorded.values()] == [1, 3]


def test_what_fails_is_not_recorded(recorded):
    def refuse(x):
        raise ValueError("no")

    for _ in range(3):
        with pytest.raises(ValueError, match="no"):
            recorded("refuse", refuse, torch.ones(1))
    assert len(recorded) == 0


def test_without_memory_for_a_graph_the_function_runs(recorded, monkeypatch):
    def full(*args, **options):
        raise torch.cuda.OutOfMemoryError

    monkeypatch.setattr(room, "Graph", full)
    for _ in range(3):
        assert recorded("double", lambda x: 2 * x, torch.ones(1)).item() == 2
    assert len(recorded) == 0


def test_a_copy_has_no_graphs(recorded):
    for _ in range(2):
        recorded("double", lambda x: 2 * x, torch.ones(1))
    twin = copy.deepcopy(recorded)
    assert (len(recorded), len(twin), twin.capacity) == (1, 0, 2)


def test_nothing_is_recorded_off_the_gpu_or_with_gradients():
    assert not room.replayable((torch.ones(2),))
    graphs = Graphs()
    x = torch.ones(2, requires_grad=True)
    for _ in range(3):
        graphs("double", lambda x: 2 * x, x).sum().backward()
    assert len(graphs) == 0


def parts(x):
    return {"sum": (x + 1, x.sum()), "kept": [x * x]}


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
class TestOnTheGPU:
    def test_replays_equal_the_function_and_stay_as_they_were(self):
        graphs, held = Graphs(), []
        for count in range(6):
            x = torch.full((5, 7), float(count), device="cuda")
            held.append((count, graphs("parts", parts, x)))
        assert len(graphs) == 1
        for count, found in held:
            assert found["sum"][0].unique().item() == count + 1
            assert found["sum"][1].item() == 35 * count
            assert found["kept"][0].unique().item() == count**2

    def test_streams_and_threads_take_turns(self):
        graphs, wrong = Graphs(), []

        def slow(x):
            for _ in range(20):
                x = (x @ torch.eye(len(x), device=x.device)).contiguous()
            return x

        def use(seed):
            stream = torch.cuda.Stream()
            with torch.cuda.stream(stream):
                for turn in range(20):
                    size = 64 + 64 * (turn % 3)
                    x = torch.full((size, size), float(100 * seed + turn), device="cuda")
                    found = graphs("slow", slow, x)
                    if not torch.equal(found, x):
                        wrong.append((seed, turn))

        threads = [threading.Thread(target=use, args=(seed,)) for seed in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not wrong
        assert len(graphs) == 3

    def test_memory_is_returned(self):
        torch.cuda.empty_cache()
        before = torch.cuda.memory_allocated()
        graphs = Graphs(capacity=2)
        for size in (1000, 1000, 1500, 1500, 2000, 2000, 2500, 2500):
            graphs("square", lambda x: x.cumsum(0) * x, torch.ones(size, size, device="cuda"))
        assert len(graphs) == 2
        graphs.clear()
        torch.cuda.synchronize()
        torch.cuda.empty_cache()
        assert torch.cuda.memory_allocated() - before < 2**20
