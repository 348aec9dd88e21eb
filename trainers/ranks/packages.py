"""Looks for each optional package once."""

from functools import cache

from accelerate.utils import imports


def look_once_for_packages() -> None:
    """accelerate 1.15 searches all of sys.path for LOMO's optimizers twice in every step: a dozen looks at the file system, and 0.3 ms of the host.

    What is not installed when a run begins is not used in it.
    """
    imports._is_package_available = cache(imports._is_package_available)
