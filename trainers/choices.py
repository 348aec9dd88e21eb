"""The module that carries out a choice: it has the name of the choice."""

import importlib
from types import ModuleType


def module_of(group: str, name: str, package: str) -> ModuleType:
    """Imported when it is asked for: the libraries of one stage take seconds.

    Raises:
        ValueError: naming the choice and the file that is missing.
    """
    module = f"{package}.{name}"
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name != module:
            raise
        path = module.replace(".", "/")
        raise ValueError(f"{group}={name} has no module: add {path}.py. CONTRIBUTING.md says what it holds.") from error
