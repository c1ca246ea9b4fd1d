"""The methods of a pool, one after another: apply, map, apply_async, starmap, and a function that sleeps."""

import sys
import time

from rankpool import Pool


def cube(x):
    return x**3


def power(x, y):
    return x**y


def sleep_square(x, seconds):
    time.sleep(seconds)
    return x * x


if __name__ == "__main__":
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 1.0
    with Pool(processes=4) as pool:
        print([pool.apply(cube, args=(x,)) for x in range(1, 7)])
        print(pool.map(cube, range(1, 7)))
        results = [pool.apply_async(cube, args=(x,)) for x in range(1, 7)]
        print([result.get() for result in results])
        print(pool.starmap(power, [(x, 2) for x in range(10)]))
        print(pool.starmap_async(power, zip(range(10), range(10))).get())

        collected = []
        for x in range(10):
            pool.apply_async(sleep_square, args=(x, seconds), callback=collected.append)
        pool.close()
        pool.join()
        print(sorted(collected))
