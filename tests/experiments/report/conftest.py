"""A finished study, and figures that cost nothing."""

import pytest


@pytest.fixture(scope="session")
def full_run(tmp_path_factory):
    """A finished study with one planted drift, and its page."""
    from planted import grid, make_run, reference  # not before types are checked

    from experiments import report
    from experiments.study import names

    rows = reference((0, 1)) + grid()
    planted = next(
        row
        for row in rows
        if names.method_name(row) == "uniform mid-tread wide"
        and (row["bits"], row["mode"]) == (6, "ptq")
    )
    planted |= {"emd_mean": 0.0263, "accuracy": 0.972}
    starts = [{"rows": len(rows), "seconds": 391.5, "commit": "1a2b3c4"}]
    path = make_run(tmp_path_factory.mktemp("runs") / "full", rows, starts=starts)
    return path, report.write(path)


@pytest.fixture
def undrawn(monkeypatch, full_run):
    """Figures are built but not drawn, which takes most of the time."""
    from snnjax.report import charts

    png = (full_run[0] / "figures" / "over_bits.png").read_bytes()
    monkeypatch.setattr(charts, "to_png", lambda chart: png)
