"""slow_fn as written for tqdm's own pool: from tqdm.contrib.concurrent import process_map"""

from slow_fn import arguments, report

from rankpool.compat.tqdm import process_map

if __name__ == "__main__":
    function, jobs = arguments()
    report(process_map(function, jobs, chunksize=4))
