"""Pictures with masks: read from published layouts or made up from a seed, and prepared for a network.

The public names stand in `__init__.pyi`; each is imported when it is first used, so that a command line can show
its help without PyTorch.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
