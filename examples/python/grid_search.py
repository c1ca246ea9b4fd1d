"""scikit-learn's grid search on all cores of all nodes: its own program, with the backend registered."""

import argparse

from joblib import parallel_config
from sklearn.datasets import load_digits
from sklearn.model_selection import GridSearchCV
from sklearn.svm import SVC

import rankpool.joblib

if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--images", type=int, default=1797, help="use only this number of the 1797 images of digits")
    parser.add_argument("--backend", default="rankpool", help="another backend of joblib, to compare: loky, sequential")
    options = parser.parse_args()
    digits = load_digits()
    search = GridSearchCV(SVC(), {"C": [0.1, 1, 10], "gamma": [0.0001, 0.001, 0.01]}, cv=3, n_jobs=-1)
    rankpool.joblib.register()
    with parallel_config(backend=options.backend):
        search.fit(digits.data[: options.images], digits.target[: options.images])
    for parameters, score in zip(search.cv_results_["params"], search.cv_results_["mean_test_score"]):
        print(parameters, f"{score:.6f}")
    print("best:", search.best_params_, f"{search.best_score_:.6f}")
