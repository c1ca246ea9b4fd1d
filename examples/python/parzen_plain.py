"""The Parzen-window estimate of a density in plain Python: the work of a tutorial's sweep over window widths.

    rankpool map --python examples/python/parzen_plain.py:density --range 0.012:1.2:0.012
"""

import random

GENERATOR = random.Random(1)
SAMPLES = [(GENERATOR.gauss(0, 1), GENERATOR.gauss(0, 1)) for _ in range(100_000)]
POINT = (0.0, 0.0)


def density(width):
    """Returns the width and the density at the point: samples in the square of this width around it, by its area."""
    inside = 0
    for sample in SAMPLES:
        for x, center in zip(sample, POINT):
            if abs(x - center) / width > 0.5:
                break
        else:
            inside += 1
    return {"width": width, "density": inside / (len(SAMPLES) * width ** len(POINT))}
