"""slow_fn as written for joblib: one line more, which registers the backend."""

from joblib import Parallel, delayed, parallel_config
from slow_fn import arguments, report

import rankpool.joblib

if __name__ == "__main__":
    function, jobs = arguments()
    rankpool.joblib.register()
    with parallel_config(backend="rankpool"):
        report(Parallel(n_jobs=-1)(delayed(function)(job) for job in jobs))
