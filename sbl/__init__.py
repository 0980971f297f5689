"""Kronecker-structured sparse Bayesian learning and channel estimation.

The public names stand in `__init__.pyi`; each is imported when it is first used, so that a command line can show
its help without PyTorch.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
