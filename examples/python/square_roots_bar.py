"""Square roots, with a bar that counts results as they come."""

import math
import sys

from tqdm import tqdm

from rankpool import Executor

if __name__ == "__main__":
    numbers = range(1, int(sys.argv[1]) if len(sys.argv) > 1 else 5000)
    with Executor() as executor:
        roots = list(tqdm(executor.map(math.sqrt, numbers), total=len(numbers)))
    print(len(roots), "roots, sum", repr(sum(roots)))
