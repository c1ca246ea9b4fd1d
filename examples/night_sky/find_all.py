"""Finds the stars in all images with an executor, and writes them as a table.

    mpiexec -n 8 rankpool python --journal stars.journal --resume find_all.py sky/images.txt stars.csv
    python find_all.py sky/images.txt stars.csv

With a journal, the images that were done before an interruption are not searched again.
"""

import sys

from find_stars import find
from tables import write

from rankpool import Executor

if __name__ == "__main__":
    images, output = sys.argv[1:]
    with open(images) as file:
        paths = file.read().splitlines()
    with Executor() as executor:
        stars = write(output, executor.map(find, paths))
    print(f"{stars} stars in {len(paths)} images")
