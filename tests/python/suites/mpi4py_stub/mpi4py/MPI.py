"""The few names of `mpi4py.MPI` that the tests look at. The script is one process."""


class Comm:
    def Get_size(self):
        return 1

    def Get_rank(self):
        return 0


COMM_WORLD = Comm()
COMM_SELF = Comm()


def get_vendor():
    return "rankpool", (0, 0, 0)


def Get_version():
    return 4, 1
