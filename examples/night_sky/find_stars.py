"""Finds the stars in an image: one function of one path, for `rankpool map` and for the executor.

    mpiexec -n 8 rankpool map --python find_stars.py:find --input sky/images.txt --output stars.jsonl
    python find_stars.py sky/image_00000.fits
"""

import json
import os
import sys

import numpy as np
import sep
from astropy.io import fits

THRESHOLD = 4.0  # times the noise
RADIUS = 4.0  # of the aperture in which light is added up, in pixels


def find(path):
    """Returns the image's name and its stars: x, y and flux of each, the brightest first."""
    with fits.open(path, memmap=False) as file:
        image = np.ascontiguousarray(file[0].data, dtype=np.float32)
    sky = sep.Background(image)
    light = image - sky.back()
    objects = sep.extract(light, THRESHOLD, err=sky.globalrms, minarea=4)
    flux, _, _ = sep.sum_circle(light, objects["x"], objects["y"], RADIUS)
    order = np.argsort(-flux, kind="stable")
    stars = [
        {"x": round(float(objects["x"][i]), 4), "y": round(float(objects["y"][i]), 4), "flux": round(float(flux[i]), 2)}
        for i in order
    ]
    return {"image": os.path.basename(path), "stars": stars}


if __name__ == "__main__":
    for image in sys.argv[1:]:
        print(json.dumps(find(image)))
