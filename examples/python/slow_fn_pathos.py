"""slow_fn as written for pathos: from pathos.pools import ProcessPool"""

from slow_fn import arguments, report

from rankpool.compat.pathos import ProcessPool

if __name__ == "__main__":
    function, jobs = arguments()
    pool = ProcessPool()
    results = pool.map(function, jobs)
    assert list(pool.imap(function, jobs[:5])) == results[:5]
    assert sorted(pool.uimap(function, jobs[:5])) == sorted(results[:5])
    assert pool.amap(function, jobs[:5]).get() == results[:5]
    pool.close()
    pool.join()
    report(results)
