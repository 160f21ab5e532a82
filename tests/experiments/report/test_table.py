"""The table: a line a row, with its drift."""

from planted import MEMBRANE, WEIGHTS, grid, quantized, read_table, reference

from experiments.report import table
from experiments.report.judged import judge
from experiments.study import names
from experiments.tables import emd_text, spread


def test_table_lines():
    rows = reference((0, 1)) + grid()
    text = table.markdown(judge(rows))
    lines = [line for part in text.split("### ")[1:] for line in read_table(part)]
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
    # Means over layers of what is planted at 0.5, 1 and 1.5 times a multiple of 0.0030.
    shown = ["97.80", "0.1234", "41.2", "1.3", "0.0030 [0.0018, 0.0042]"]
    shown += ["-0.0017 [-0.0034, -0.0000029]", "-", "drift below the margin"]
    shown += ["0.0060", "0.0300", "0.0090", "0.0120"]
    assert list(last.values())[4:] == shown
    assert table.markdown(judge([])).strip() == "No row is finished yet."


def test_ablation_has_its_own_tables():
    everywhere = quantized(WEIGHTS[0], 2, "qat", quantize_all=True)
    before = quantized(MEMBRANE[0], 2, "qat", site="pre_fire", quantize_all=False)
    usual = [
        quantized(way, 2, "qat", seed=seed, quantize_all=False)
        for seed in (0, 1)
        for way in (WEIGHTS[0], MEMBRANE[0])
    ]
    text = table.markdown(judge([everywhere, before, *usual]))
    titles = [line[4:] for line in text.splitlines() if line.startswith("###")]
    assert titles == [
        "Weights, QAT",
        "Weights everywhere, QAT",
        "Membrane, QAT",
        "Membrane pre-fire, QAT",
    ]
    assert [line["seed"] for line in read_table(text)] == ["0", "1"]


def test_spread_of_nan():
    assert spread([0.1, float("nan")], emd_text) == "nan"


def test_missing_measures_are_dashes():
    (row,) = [quantized(WEIGHTS[0], 2, "qat", emd=0.003)]
    for key in ("ks", "latency_emd", "time_w1"):
        del row[key]
    (line,) = read_table(table.markdown(judge([row])))
    assert list(line.values())[-3:] == ["-"] * 3
