"""slow_fn as written for Dask: from dask.distributed import Client, as_completed"""

from slow_fn import arguments, report

from rankpool.compat.dask import Client, as_completed

if __name__ == "__main__":
    function, jobs = arguments()
    client = Client()
    futures = client.map(function, jobs)
    results = client.gather(futures)
    few = [client.submit(function, job) for job in jobs[:5]]
    assert sorted(future.result() for future in as_completed(few)) == sorted(results[:5])
    report(results)
    client.close()
