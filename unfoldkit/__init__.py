"""Deep-unfolded robust PCA for small objects, and Kronecker-structured sparse Bayesian learning for channels.

`unfoldkit.rpcanet`, `unfoldkit.sbl`, `unfoldkit.kernels` and `unfoldkit.datasets` are the packages,
`unfoldkit.tools` the commands. In a checkout they are links to the folders of those names beside this one.
"""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("unfoldkit")
except PackageNotFoundError:  # a checkout on the path alone
    __version__ = "not installed"
