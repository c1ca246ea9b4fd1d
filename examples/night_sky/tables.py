"""The stars as a table: a CSV file with the columns image, x, y, flux.

    python tables.py stars.jsonl stars.csv        the results of `rankpool map` as the table that find_all.py writes
"""

import csv
import json
import sys


def write(path, results):
    """Writes the results of `find_stars.find` and returns how many stars there are."""
    stars = 0
    with open(path, "w", newline="") as file:
        table = csv.writer(file)
        table.writerow(("image", "x", "y", "flux"))
        for result in results:
            for star in result["stars"]:
                table.writerow((result["image"], star["x"], star["y"], star["flux"]))
                stars += 1
    return stars


def read(path):
    """Returns a dict: for each image, its stars as a list of (x, y, flux)."""
    images = {}
    with open(path, newline="") as file:
        for row in csv.DictReader(file):
            star = (float(row["x"]), float(row["y"]), float(row["flux"]))
            images.setdefault(row["image"], []).append(star)
    return images


if __name__ == "__main__":
    lines, output = sys.argv[1:]
    with open(lines) as file:
        write(output, map(json.loads, file))
