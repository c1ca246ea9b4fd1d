"""The shortest job for which a share of the time is useful, and how times are written."""


def metg(points, share):
    """The shortest job for which a share of the time is useful, as src/bench/curve.rs has it; with `<` or `>` in front if the share is
    reached by all or by none."""
    ordered = sorted(points, reverse=True)
    longer = ordered[0]
    if longer[1] < share:
        return ">", longer[0]
    for point in ordered[1:]:
        if point[1] < share:
            part = (share - point[1]) / (longer[1] - point[1])
            return "", point[0] * (longer[0] / point[0]) ** part
        longer = point
    return "<", longer[0]


def seconds(value):
    """A time in the unit that suits it, with two digits."""
    for unit, size in (("s", 1), ("ms", 1e-3), ("µs", 1e-6)):
        if value >= size * 0.9995:
            break
    else:
        unit, size = "ns", 1e-9
    number = value / size
    return f"{number:.0f} {unit}" if number >= 9.95 else f"{number:.1f}".removesuffix(".0") + f" {unit}"
