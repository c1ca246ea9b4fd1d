"""Runs commands with HyperQueue on two cores, and prints the seconds from their submission to their end.

    hyperqueue_true.py 10000                                           /bin/true 10 000 times
    hyperqueue_true.py '[[10000, ["/bin/true"]], [50, ["sleep", "1"]]]'   a line for each; server and worker stay
"""

import json
import os
import sys
import tempfile
import time

from hyperqueue import Job, LocalCluster
from hyperqueue.cluster import WorkerConfig
from hyperqueue.task.task import ResourceRequest


def main():
    batches = json.loads(sys.argv[1])
    if isinstance(batches, int):
        batches = [(batches, ["/bin/true"])]
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        # The server and the worker leave folders.
        os.environ["TMPDIR"] = folder
        with LocalCluster() as cluster:
            cluster.start_worker(WorkerConfig(cores=2))
            client = cluster.client()
            for number, (jobs, command) in enumerate(batches):
                job = Job()
                for _ in range(jobs):
                    # Without files for the output of each.
                    job.program(command, stdout=None, stderr=None)
                # `wait_for_jobs` looks once a second only. This one needs both cores, so it runs when all others have ended.
                ended = os.path.join(folder, f"ended-{number}")
                last = ResourceRequest(cpus=2)
                job.program(["touch", ended], stdout=None, stderr=None, priority=-1, resources=last)
                start = time.time()
                client.wait_for_jobs([client.submit(job)])
                print(os.stat(ended).st_mtime - start, flush=True)
        os.chdir("/")


if __name__ == "__main__":
    main()
