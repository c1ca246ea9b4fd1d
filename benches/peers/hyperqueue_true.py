"""Runs commands with HyperQueue on two cores, and prints the seconds from their submission to their end.

    hyperqueue_true.py 10000                                           /bin/true so many times
    hyperqueue_true.py '[[10000, ["/bin/true"]], [50, ["sleep", "1"]]]'   a line for each; server and worker stay
"""

import json
import os
import sys
import tempfile
import time

from hyperqueue import Job, LocalCluster
from hyperqueue.cluster import WorkerConfig


def main():
    batches = json.loads(sys.argv[1])
    if isinstance(batches, int):
        batches = [(batches, ["/bin/true"])]
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        with LocalCluster() as cluster:
            cluster.start_worker(WorkerConfig(cores=2))
            client = cluster.client()
            for jobs, command in batches:
                job = Job()
                for _ in range(jobs):
                    # Without files for the output of each.
                    job.program(command, stdout=None, stderr=None)
                start = time.perf_counter()
                client.wait_for_jobs([client.submit(job)])
                print(time.perf_counter() - start, flush=True)
        os.chdir("/")


if __name__ == "__main__":
    main()
