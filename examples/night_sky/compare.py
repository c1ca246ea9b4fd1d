"""Compares the stars that were found with those that were put in.

    python compare.py sky/truth.csv stars.csv

Printed as one line of JSON: completeness (the part of the stars in the images that was found), purity (the part of what was
found that is a star), the root mean square of the distance in pixels between a star and its place in the table, and the
median of the flux that was measured, divided by the star's.
"""

import json
import sys

import numpy as np
from tables import read

NEAR = 1.5  # pixels: what was found this near to a star is that star


def pairs(truth, found):
    """Returns pairs (star, what was found) of one image, the nearest ones first, each in one pair only."""
    if not truth or not found:
        return []
    truth, found = np.array(truth), np.array(found)
    distances = np.hypot(truth[:, None, 0] - found[None, :, 0], truth[:, None, 1] - found[None, :, 1])
    matched = []
    while distances.min() <= NEAR:
        star, it = np.unravel_index(distances.argmin(), distances.shape)
        matched.append((truth[star], found[it]))
        distances[star, :] = distances[:, it] = np.inf
    return matched


def main():
    truth, found = (read(path) for path in sys.argv[1:])
    matched = [pair for image, stars in truth.items() for pair in pairs(stars, found.get(image, []))]
    stars, objects = (sum(map(len, table.values())) for table in (truth, found))
    offsets = [np.hypot(*(star[:2] - it[:2])) for star, it in matched]
    report = {
        "stars": stars,
        "found": objects,
        "completeness": round(len(matched) / max(stars, 1), 4),
        "purity": round(len(matched) / max(objects, 1), 4),
        "position_error": round(float(np.sqrt(np.mean(np.square(offsets)))), 4) if matched else None,
        "flux_ratio": round(float(np.median([it[2] / star[2] for star, it in matched])), 4) if matched else None,
    }
    print(json.dumps(report))


if __name__ == "__main__":
    main()
