"""The table: a line a row, with its drift."""

from planted import FLOOR, WEIGHTS, grid, quantized, reference

from experiments.report import names, table


def test_table_has_a_line_a_row():
    rows = reference((0, 1)) + grid()
    text = table.markdown(rows)
    header = next(line for line in text.splitlines() if line.startswith("| method"))
    columns = [cell.strip() for cell in header.strip("|").split("|")]
    lines = [
        dict(zip(columns, (c.strip() for c in line.strip("|").split("|")), strict=True))
        for line in text.splitlines()
        if line.startswith("|") and not line.startswith(("| method", "| ---"))
    ]
    assert len(lines) == len(rows)
    for mode, name in names.MODE_NAMES.items():
        wanted = {
            (names.method_name(row), str(row["bits"] or "-"))
            for row in rows
            if row["mode"] == mode
        }
        there = {(li["method"], li["bits"]) for li in lines if li["mode"] == name}
        assert there == wanted
    last = lines[-1]
    assert last["accuracy %"] == "97.80"
    assert last["dead %"] == "41.2"
    assert last["saturated %"] == "1.3"
    assert last["EMD"] == "0.0030"
    assert last["noise floor"] == "0.0047"
    assert last["drift"] == "within"


def test_table_marks_drift_and_collapse():
    rows = [
        *reference(),
        quantized(WEIGHTS[0], 2, "qat", emd=2 * FLOOR),
        quantized(WEIGHTS[1], 2, "qat", emd=0.1, accuracy=0.1),
    ]
    text = table.markdown(rows)
    assert "2.00 x floor" in text
    assert "collapsed" in text
    assert table.markdown([]).strip() == "No row is finished yet."
