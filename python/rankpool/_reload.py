"""Functions of modules that the script has loaded again (`importlib.reload`, `%autoreload` in notebooks)."""

import sys

_generations: dict = {}  # in a worker: how often a module was loaded again


class Reloaded:
    """A function by its name, in a module that the script has loaded again. It arrives as the function."""

    def __init__(self, module, name, generation):
        self._arguments = (module, name, generation)

    def __reduce__(self):
        return load_reloaded, self._arguments


def load_reloaded(module, name, generation):
    """In a worker: the function, after its module was loaded as often as in the script."""
    import importlib

    if _generations.get(module, 0) < generation:
        importlib.invalidate_caches()
        if module in sys.modules:
            importlib.reload(sys.modules[module])
        _generations[module] = generation
    found = importlib.import_module(module)
    for part in name.split("."):
        found = getattr(found, part)
    return found
