"""A dictionary of parameters for each job, with imap and a bar."""

from tqdm import tqdm

from rankpool import Pool


def add(parameters):
    return parameters["param1"] + parameters["param2"]


if __name__ == "__main__":
    inputs = [{"param1": value, "param2": 15} for value in (10, 22, 35, 4, 532, 12, 42, 53, 23)]
    with Pool() as pool:
        results = list(tqdm(pool.imap(add, inputs), total=len(inputs)))
    print(results)
