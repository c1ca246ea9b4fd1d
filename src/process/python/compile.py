"""Run by the build with each Python that is found: compiles the package, so that programs of that version need not.

    python compile.py OUT FILE NAME ...      OUT.MAGIC is written: {name of a module: its code}, by `marshal`
"""

import marshal
import sys
from importlib.util import MAGIC_NUMBER


def main(out, *files):
    if sys.implementation.name != "cpython" or sys.version_info < (3, 10):
        sys.exit("code is compiled for CPython 3.10 and newer")
    modules = {}
    for path, name in zip(files[::2], files[1::2]):
        with open(path, encoding="utf-8") as file:
            text = file.read()
        module = name[: -len(".py")].replace("/", ".")
        if module.endswith(".__init__"):
            module = module[: -len(".__init__")]
        # There is no such file: the lines of tracebacks come from the zip.
        code = compile(text, f"<zip>/{name}", "exec", dont_inherit=True, optimize=0)
        modules[module] = marshal.dumps(code)
    with open(f"{out}.{MAGIC_NUMBER.hex()}", "wb") as file:
        file.write(marshal.dumps(modules))


main(*sys.argv[1:])
