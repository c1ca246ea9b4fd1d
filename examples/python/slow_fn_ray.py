"""slow_fn as written for Ray: import ray"""

import slow_fn

from rankpool.compat import ray

if __name__ == "__main__":
    function, jobs = slow_fn.arguments()
    ray.init()
    remote_fn = ray.remote(function)
    results = ray.get([remote_fn.remote(job) for job in jobs])
    ready, _ = ray.wait([remote_fn.remote(jobs[0])], num_returns=1)
    assert ray.get(ready) == results[:1]
    slow_fn.report(results)
    ray.shutdown()
