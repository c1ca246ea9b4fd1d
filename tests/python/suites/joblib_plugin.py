"""A pytest plugin for joblib's `test_parallel.py`: makes the backend known before the tests are collected, because they
are made for each backend that joblib knows, and keeps the tests that use it."""

import rankpool.joblib

rankpool.joblib.register(make_default=False)


def _is_ours(value):
    return value == "rankpool" or isinstance(value, rankpool.joblib.RankpoolBackend)


def pytest_collection_modifyitems(config, items):
    ours, others = [], []
    for item in items:
        values = getattr(getattr(item, "callspec", None), "params", {}).values()
        (ours if any(map(_is_ours, values)) else others).append(item)
    config.hook.pytest_deselected(items=others)
    items[:] = ours
