"""Makes images of a night sky in FITS files, and a table of the stars that are in them.

    python make_images.py sky --count 2000

Each image is a flat sky with noise and stars of one width on it. The same seed makes the same images. Written into the
folder: image_00000.fits and so on, truth.csv (image, x, y, flux), and images.txt, one path on each line.
"""

import argparse
import csv
from pathlib import Path

import numpy as np
from astropy.io import fits

SKY = 100.0
NOISE = 5.0
WIDTH = 1.3  # the standard deviation of a star's profile, in pixels
APART = 9.0  # no two stars are nearer than this, and none is nearer than half of it to an edge


def places(generator, size, stars):
    """Draws the places of this number of stars, or of as many as find room."""
    chosen = []
    for _ in range(50 * stars):
        place = generator.uniform(APART / 2, size - 1 - APART / 2, 2)
        if all(np.hypot(*(place - other)) >= APART for other in chosen):
            chosen.append(place)
        if len(chosen) == stars:
            break
    return chosen


def make_image(index, size, stars, seed):
    """Returns the pixels of an image and its stars as (x, y, flux)."""
    generator = np.random.default_rng([seed, index])
    image = generator.normal(SKY, NOISE, (size, size))
    ys, xs = np.mgrid[0:size, 0:size]
    truth = []
    for x, y in places(generator, size, stars):
        flux = float(np.exp(generator.uniform(np.log(100.0), np.log(20_000.0))))
        profile = np.exp(-((xs - x) ** 2 + (ys - y) ** 2) / (2 * WIDTH**2))
        image += flux / (2 * np.pi * WIDTH**2) * profile
        truth.append((float(x), float(y), flux))
    return image.astype(np.float32), truth


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--count", type=int, default=2000, help="the number of images")
    parser.add_argument("--size", type=int, default=64, help="the width and height of an image in pixels")
    parser.add_argument("--stars", type=int, default=8, help="the number of stars in each image")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    paths = [options.folder / f"image_{index:05}.fits" for index in range(options.count)]
    with open(options.folder / "truth.csv", "w", newline="") as file:
        table = csv.writer(file)
        table.writerow(("image", "x", "y", "flux"))
        for index, path in enumerate(paths):
            image, truth = make_image(index, options.size, options.stars, options.seed)
            fits.PrimaryHDU(image).writeto(path, overwrite=True)
            table.writerows((path.name, f"{x:.4f}", f"{y:.4f}", f"{flux:.2f}") for x, y, flux in truth)
    (options.folder / "images.txt").write_text("".join(f"{path}\n" for path in paths))
    print(f"{options.count} images of {options.size} × {options.size} pixels in {options.folder}")


if __name__ == "__main__":
    main()
