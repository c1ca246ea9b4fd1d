"""Random strings, made in parallel, in the order in which they were asked for."""

import random
import string
import sys

from rankpool import Pool


def rand_string(length, position):
    generator = random.Random(position)
    characters = string.ascii_lowercase + string.ascii_uppercase + string.digits
    return position, "".join(generator.choice(characters) for _ in range(length))


if __name__ == "__main__":
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 4
    with Pool() as pool:
        results = [pool.apply_async(rand_string, args=(5, position)) for position in range(count)]
        strings = [result.get() for result in results]
    strings.sort()
    print([text for _, text in strings])
