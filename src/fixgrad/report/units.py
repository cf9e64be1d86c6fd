"""Numbers as people read them."""


def percent(share: float, digits: int = 2) -> str:
    """``46.55 %`` for 0.4655."""
    return f"{100 * share:.{digits}f} %"


def duration(seconds: float) -> str:
    """``850 us``, ``12.3 ms``, ``4.2 s``, ``3 min 20 s``, ``2 h 05 min``."""
    for limit, factor, unit in ((1e-3, 1e6, "us"), (1.0, 1e3, "ms"), (60.0, 1.0, "s")):
        if seconds < limit:
            value = seconds * factor
            return f"{value:.3g} {unit}" if value < 100 else f"{value:.0f} {unit}"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def byte_count(count: float) -> str:
    """``512 B``, ``9.8 kB``, ``1.2 MB``: powers of 1,000."""
    for limit, factor, unit in ((1e3, 1.0, "B"), (1e6, 1e3, "kB"), (1e9, 1e6, "MB")):
        if count < limit:
            return f"{count / factor:.3g} {unit}" if count / factor < 100 else f"{count / factor:.0f} {unit}"
    return f"{count / 1e9:.3g} GB"
