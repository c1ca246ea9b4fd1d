"""Runs /bin/true so many times with HyperQueue on two cores, and prints the seconds from submitting to the end."""

import os
import sys
import tempfile
import time

from hyperqueue import Job, LocalCluster
from hyperqueue.cluster import WorkerConfig

jobs = int(sys.argv[1])
os.chdir(tempfile.mkdtemp())
with LocalCluster() as cluster:
    cluster.start_worker(WorkerConfig(cores=2))
    client = cluster.client()
    job = Job()
    for _ in range(jobs):
        job.program(["/bin/true"])
    start = time.perf_counter()
    client.wait_for_jobs([client.submit(job)])
    print(time.perf_counter() - start)
