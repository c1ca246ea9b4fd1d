"""A function that is made at run time, and what it captures."""

from rankpool import Pool


def make_power(y):
    def power(x):
        return x**y

    return power


if __name__ == "__main__":
    with Pool() as pool:
        for y in (2, 3):
            print(pool.map(make_power(y), range(10)))
        offset = 10
        print(pool.map(lambda x: x + offset, range(10)))
