"""Random numbers that depend on a seed and on what they are for alone."""

import hashlib

import torch


def trial_generator(seed: int, *stream: int | str) -> torch.Generator:
    """A generator for one purpose of one trial, independent of all others.

    >>> int(torch.randint(1000, (), generator=trial_generator(1, 0))) == int(
    ...     torch.randint(1000, (), generator=trial_generator(1, 0)))
    True
    """
    digest = hashlib.sha256("/".join(map(str, (seed, *stream))).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))
