"""Stands in for mpi4py while its own tests run: the names that these use are rankpool's."""
