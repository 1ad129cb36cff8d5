"""What a server's /metrics say, read from their text."""


def total(text: str, name: str) -> float:
    """The sum of all series whose line starts so."""
    return sum(float(line.split()[-1]) for line in text.splitlines() if line.startswith(name))


def bound_below(text: str, histogram: str, share: float, label: str = "") -> float:
    """The smallest of a histogram's bounds that so many of its values, as a share, do not exceed."""
    name = f'{histogram}_bucket{{le="'
    rows = [
        (float(line[len(name) :].split('"')[0]), float(line.split()[-1]))
        for line in text.splitlines()
        if line.startswith(name) and label in line
    ]
    count = max(count for _, count in rows)
    return min(bound for bound, below in rows if below >= share * count)
