"""Print the results as a table."""

from rich.table import Table

from experiments.tpu_compile.step import Numbers
from experiments.tpu_compile.xla import GB


def to_table(memory: float, tried: list[Numbers]) -> Table:
    """Return a table for a terminal, a column for each batch."""
    shown = Table("on each chip")
    for _ in tried:
        shown.add_column(justify="right")

    def row(name, text):
        shown.add_row(name, *(text(n) if n["fits"] else "" for n in tried))

    shown.add_row("images on all chips", *(str(n["batch"]) for n in tried))
    for key in ("arguments", "temporaries", "outputs", "program"):
        row(f"{key}, GiB", lambda n, key=key: f"{n[key] / GB:.3f}")
    peaks = (f"{n['peak'] / GB:.2f}{' do not fit' * (not n['fits'])}" for n in tried)
    shown.add_row(f"peak, of {memory / GB:.2f} GiB", *peaks)
    row("operations a step, 10^9", lambda n: f"{n['operations'] / 1e9:.1f}")
    row("accessed a step, 10^9 bytes", lambda n: f"{n['bytes_accessed'] / 1e9:.2f}")
    known = [n["collectives"] for n in tried if n.get("collectives") is not None]
    for kind in sorted({kind for collectives in known for kind in collectives}):

        def text(n, kind=kind):
            if n["collectives"] is None:
                return "unknown"
            found = n["collectives"].get(kind, {"number": 0, "bytes": 0})
            return f"{found['number']}: {found['bytes'] / 1e6:.2f}"

        row(f"{kind}, number: 10^6 bytes", text)
    shown.add_row("seconds to compile", *(f"{n['seconds']:.0f}" for n in tried))
    return shown
