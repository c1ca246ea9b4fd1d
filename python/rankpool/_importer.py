"""How the package's modules are imported from the zip file of the program, in less time than Python takes for it by itself.

Python compiles each of them twice. The zip file has their code for the versions of Python that the build has found.
"""

# Python keeps what is here until it ends: nothing here may refer to the package, whose objects have to be gone before.

import sys
from marshal import loads

from _frozen_importlib_external import MAGIC_NUMBER


def install(loader):
    """Let the package's other modules be imported so. `loader` is the one that has found the package."""
    kind = type(loader)
    if not hasattr(kind, "exec_module"):
        return  # Python 3.9
    archive = loader.archive
    try:
        codes = loads(loader.get_data(f"{archive}/compiled/{MAGIC_NUMBER.hex()}"))
    except (OSError, ValueError):
        codes = {}

    class Importer(kind):
        def get_filename(self, fullname):
            end = "/__init__.py" if self.is_package(fullname) else ".py"
            return f"{archive}/{fullname.replace('.', '/')}{end}"

        def get_code(self, fullname):
            code = codes.pop(fullname, None)
            return super().get_code(fullname) if code is None else loads(code)

    for name in ("rankpool", "rankpool/compat"):
        path = f"{archive}/{name}"
        sys.path_importer_cache[path] = Importer(path)
