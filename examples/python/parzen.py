"""The Parzen-window estimate of a density, for a sweep of window widths, with apply_async.

    python parzen.py --samples ../../tests/data/gaussian_2d.csv --widths 0.1:1.2:12
"""

import argparse

import numpy as np

from rankpool import Pool


def parzen_estimation(samples, point, width):
    """Returns the width, how many samples are in the hypercube of this width around the point, and their density."""
    inside = np.all(np.abs((samples - point) / width) <= 0.5, axis=1)
    count = int(np.count_nonzero(inside))
    return width, count, count / (len(samples) * width ** samples.shape[1])


def widths_of(text):
    start, end, count = text.split(":")
    return [round(float(width), 12) for width in np.linspace(float(start), float(end), int(count))]


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--samples", help="a CSV file without header; by default, 10 000 samples are drawn")
    parser.add_argument("--widths", type=widths_of, default="0.1:1.2:12", metavar="START:END:COUNT")
    options = parser.parse_args()
    if options.samples:
        samples = np.loadtxt(options.samples, delimiter=",")
    else:
        samples = np.random.default_rng(1).multivariate_normal([0, 0], [[1, 0], [0, 1]], 10_000)
    point = np.zeros(samples.shape[1])
    with Pool() as pool:
        results = [pool.apply_async(parzen_estimation, args=(samples, point, width)) for width in options.widths]
        results = [result.get() for result in results]
    results.sort()
    for width, count, density in results:
        print(f"h = {width:.4g}: {count} samples, p(x) = {density:.5f}")
