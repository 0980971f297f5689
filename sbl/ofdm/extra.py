"""What to say where Sionna is not installed."""

from importlib import import_module


def require_sionna() -> None:
    """Raises ModuleNotFoundError, which names the extra, where Sionna is missing.

    >>> try:
    ...     require_sionna()
    ... except ModuleNotFoundError as error:
    ...     assert "unfoldkit[sionna]" in str(error)
    """
    try:
        import_module("sionna.phy")
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "this needs Sionna, on Python 3.11 or newer: pip install 'unfoldkit[sionna]'", name=error.name
        ) from error
