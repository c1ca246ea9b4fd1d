"""The pools of two workers that are measured, behind one set of methods: one by one, and in chunks.

A name alone is the pool itself (`loky`), with `rankpool.` in front of it the same code with rankpool's import line
(`rankpool.loky`); `rankpool` is its own Executor, `serial` a plain loop.
"""

import functools
import importlib
import os

WORKERS = 2
# Chunks of a map whose pool has no rule of its own: four for each worker, as multiprocessing.Pool makes them.
CHUNKS = 4 * WORKERS


def rule(count):
    return max(1, -(-count // CHUNKS))


def each_of(function, xs):
    return [function(x) for x in xs]


def pieces(xs, chunk):
    chunk = chunk or rule(len(xs))
    return [xs[start : start + chunk] for start in range(0, len(xs), chunk)]


class Front:
    """A pool. `submit` and `result` are there if it has futures."""

    def __init__(self, package):
        # Where the name comes from: the peer's own package, or the one of rankpool that stands for it.
        self.package = package

    def one_by_one(self, function, xs):
        """The values of all, each job sent by itself."""
        return [self.result(future) for future in [self.submit(function, x) for x in xs]]

    def chunked(self, function, xs, chunk=0):
        """The same in chunks of this number of jobs. 0: the pool's own rule, or that of multiprocessing.Pool if it has none."""
        parts = self.one_by_one(functools.partial(each_of, function), pieces(xs, chunk))
        return [value for part in parts for value in part]

    def close(self):
        pass


class Serial(Front):
    def one_by_one(self, function, xs):
        return [function(x) for x in xs]

    def chunked(self, function, xs, chunk=0):
        return self.one_by_one(function, xs)


class Futures(Front):
    """An executor of `concurrent.futures` and those that look like it."""

    def __init__(self, package):
        super().__init__(package)
        self.executor = self.make()

    def make(self):
        return self.package.ProcessPoolExecutor(WORKERS)

    def submit(self, function, x):
        return self.executor.submit(function, x)

    def result(self, future):
        return future.result()

    def chunked(self, function, xs, chunk=0):
        return list(self.executor.map(function, xs, chunksize=chunk or rule(len(xs))))

    def close(self):
        self.executor.shutdown(wait=True)


class Own(Futures):
    """rankpool's Executor, whose chunks follow the time of the jobs."""

    def make(self):
        return self.package.Executor()

    def chunked(self, function, xs, chunk=0):
        return list(self.executor.map(function, xs, **({"chunksize": chunk} if chunk else {})))


class Loky(Futures):
    def make(self):
        return self.package.get_reusable_executor(WORKERS)


class Mpi4py(Futures):
    def make(self):
        return self.package.MPIPoolExecutor()


class Pool(Front):
    def __init__(self, package):
        super().__init__(package)
        self.pool = package.Pool(WORKERS)

    def submit(self, function, x):
        return self.pool.apply_async(function, (x,))

    def result(self, future):
        return future.get()

    def chunked(self, function, xs, chunk=0):
        return self.pool.map(function, xs, chunk or None)

    def close(self):
        self.pool.close()
        self.pool.join()


class Pathos(Pool):
    def __init__(self, package):
        Front.__init__(self, package)
        self.pool = package.ProcessPool(WORKERS)

    def submit(self, function, x):
        return self.pool.apipe(function, x)

    def chunked(self, function, xs, chunk=0):
        return self.pool.map(function, xs, chunksize=chunk or rule(len(xs)))

    def close(self):
        super().close()
        self.pool.clear()


class PTqdm(Front):
    def one_by_one(self, function, xs):
        return self.package.p_map(function, xs, num_cpus=WORKERS, disable=True)


class Joblib(Front):
    def __init__(self, package):
        import joblib

        super().__init__(package)
        self.joblib = joblib
        if package is not joblib:
            package.register()
        self.parallel = joblib.Parallel(n_jobs=WORKERS)
        self.parallel.__enter__()

    def run(self, function, xs, batch):
        self.parallel.batch_size = batch
        return self.parallel(self.joblib.delayed(function)(x) for x in xs)

    def one_by_one(self, function, xs):
        return self.run(function, xs, 1)

    def chunked(self, function, xs, chunk=0):
        return self.run(function, xs, chunk or "auto")

    def close(self):
        self.parallel.__exit__(None, None, None)
        if self.package is self.joblib:
            from joblib.externals.loky import get_reusable_executor

            get_reusable_executor().shutdown(wait=True)


class Dask(Front):
    def __init__(self, package):
        super().__init__(package)
        options = {"n_workers": WORKERS, "threads_per_worker": 1, "dashboard_address": None}
        self.cluster = package.LocalCluster(**options)
        self.client = package.Client(self.cluster)

    def submit(self, function, x):
        return self.client.submit(function, x, pure=False)

    def result(self, future):
        return future.result()

    def one_by_one(self, function, xs):
        # `gather` is what its documentation says for many futures.
        return self.client.gather([self.submit(function, x) for x in xs])

    def close(self):
        self.client.close()
        self.cluster.close()


class Ray(Front):
    def __init__(self, package):
        super().__init__(package)
        options = {"include_dashboard": False, "log_to_driver": False, "object_store_memory": 200 << 20}
        folder = os.environ.get("RANKPOOL_RAY_FOLDER")
        if folder:
            options["_temp_dir"] = folder
        package.init(num_cpus=WORKERS, **options)
        self.remote = {}

    def submit(self, function, x):
        if function not in self.remote:
            self.remote[function] = self.package.remote(as_function(function))
        return self.remote[function].remote(x)

    def result(self, future):
        return self.package.get(future)

    def one_by_one(self, function, xs):
        return self.package.get([self.submit(function, x) for x in xs])

    def close(self):
        self.package.shutdown()


def as_function(function):
    """Ray takes functions only, and no `partial`."""
    if isinstance(function, functools.partial):
        return lambda x: function(x)
    return function


FRONTS = {
    "futures": (Futures, "concurrent.futures", "rankpool"),
    "pool": (Pool, "multiprocessing", "rankpool"),
    "loky": (Loky, "loky", "rankpool.compat.loky"),
    "mpi4py": (Mpi4py, "mpi4py.futures", "rankpool.compat.mpi4py"),
    "pathos": (Pathos, "pathos.multiprocessing", "rankpool.compat.pathos"),
    "p_tqdm": (PTqdm, "p_tqdm", "rankpool.compat.p_tqdm"),
    "joblib": (Joblib, "joblib", "rankpool.joblib"),
    "dask": (Dask, "dask.distributed", "rankpool.compat.dask"),
    "ray": (Ray, "ray", "rankpool.compat.ray"),
}


def front(name):
    """Starts the pool of this name."""
    if name == "serial":
        return Serial(None)
    if name == "rankpool":
        return Own(importlib.import_module("rankpool"))
    if name == "rankpool.futures":
        return Own(importlib.import_module("rankpool"))
    kind, theirs, ours = FRONTS[name.removeprefix("rankpool.")]
    return kind(importlib.import_module(ours if name.startswith("rankpool.") else theirs))
