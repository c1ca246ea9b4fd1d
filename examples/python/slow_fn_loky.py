"""slow_fn as written for loky: from loky import get_reusable_executor"""

from slow_fn import arguments, report

from rankpool.compat.loky import get_reusable_executor

if __name__ == "__main__":
    function, jobs = arguments()
    executor = get_reusable_executor(timeout=10)
    report(executor.map(function, jobs))
