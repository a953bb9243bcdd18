"""Runs the code of notebooks from top to bottom, without Jupyter: `python run.py NOTEBOOK...`."""

import contextlib
import json
import os
import sys
import tempfile


def run(path):
    with open(path, encoding="utf-8") as file:
        cells = json.load(file)["cells"]
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    space = {"__name__": "__main__"}
    with tempfile.TemporaryDirectory() as folder, at(folder):
        for number, source in enumerate(code, 1):
            exec(compile(source, f"{os.path.basename(path)}, cell {number}", "exec"), space)
    print(f"{path}: {len(code)} cells")


@contextlib.contextmanager
def at(folder):
    before = os.getcwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


if __name__ == "__main__":
    for name in sys.argv[1:]:
        run(os.path.abspath(name))
