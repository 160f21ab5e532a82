"""What the paper leaves open: pairs that differ in that alone, and their changes."""

from studied import BASE, a_run

from experiments.report import ablation
from experiments.study.config import StudyConfig

CONFIG = StudyConfig(bits=(2, 4, 8), modes=("ptq", "qat"), ablation_bits=(2, 4))


def changed(row):
    """Mid-tread costs 2 points, pre-fire 0.001 EMD a bit, everywhere both."""
    change = {}
    if row["grid"] == "mid_tread" and row["target"] == "weights":
        change = {"accuracy": BASE - 0.02}
    if row["site"] == "pre_fire":
        change = {"emd": 0.002 + 0.001 * row["bits"]}
    if row["quantize_all"]:
        change = {"accuracy": BASE - 0.05, "emd": 0.012}
    return change


def test_choices_have_the_pairs_of_the_ablation_bits():
    grid, site, scope = ablation.find_choices(a_run(CONFIG, changed))
    # Two clips, two signs, six methods; each at two bits in two modes.
    assert [len(choice.pairs) for choice in (grid, site, scope)] == [8, 8, 24]
    for one, other in site.pairs:
        assert one.row["bits"] == other.row["bits"] in (2, 4)
        assert (one.row["site"], other.row["site"]) == ("post_reset", "pre_fire")
    assert not any(v.row["quantize_all"] for pair in grid.pairs for v in pair)


def test_a_sentence_a_mode_tells_mean_and_range():
    grid, site, scope = ablation.find_choices(a_run(CONFIG, changed))
    assert ablation.describe_effect(grid).splitlines() == [
        f"- By {mode} at {bits} bits, {clip}, mid-tread in place of mid-rise, over 1 "
        "pair, changes accuracy by -2.00 points and EMD by +0.0000, within the floors."
        for mode in ("PTQ", "QAT")
        for bits in (2, 4)
        for clip in ("narrow", "wide")
    ]
    two, *_ = ablation.describe_effect(site).splitlines()
    # Beyond the 0.001 of other test images; by QAT the control's 0.002 is the floor.
    assert two.endswith(
        "+0.0020), beyond the noise floor in 0, beyond the lower one in 2."
    )
    assert "+0.0020 (+0.0020 to +0.0020)" in ablation.describe_effect(site)
    assert "+0.0040 (+0.0040 to +0.0040)" in ablation.describe_effect(site)
    text = ablation.markdown(scope)
    assert text.startswith("- By PTQ at 2 bits, everywhere in place of blocks, over 6")
    assert len(text.splitlines()) == 4 + 1 + 1 + 2 + 24
    (line,) = [
        li for li in text.splitlines() if "LQ-Net wide" in li and "4 | QAT" in li
    ]
    cells = [cell.strip() for cell in line.split("|")[5:-1]]
    assert cells == ["90.00", "85.00", "-5.00", "0.0020", "0.0120", "+0.0100"]


def test_a_drift_that_accuracy_hides_is_told():
    def moved(row):
        moves = 0.0003 * row["bits"] ** 2 * (row["site"] == "pre_fire")
        return changed(row) | ({"emd": 0.002 + moves} if moves else {})

    grid, site, scope = ablation.find_choices(a_run(CONFIG, moved))
    # Two signs, equal accuracy. At 4 bits EMD moves by 0.0048, beyond all floors; at 2
    # by 0.0012, beyond the lower floor of PTQ, 0.001, and within that of QAT, 0.002.
    assert ablation.describe_hidden_drift(site) == (
        "- Of 8 pairs 8 keep accuracy within a point, and within 0.5 of each other; "
        "there accuracy hides a drift in 4 by the noise floor, in 6 by the lower one; "
        "the furthest apart: membrane signed pre-fire 4 bit PTQ with accuracy 90.0% "
        "and EMD 0.0068, 6.80 times its floor, against membrane signed 4 bit PTQ with "
        "accuracy 90.0% and EMD 0.0020, 2.00 times its floor: 3.4 times."
    )
    # Mid-tread costs 2 points, the scope 5.
    for choice in (grid, scope):
        assert ablation.describe_hidden_drift(choice) == (
            f"- Of {len(choice.pairs)} pairs 0 keep accuracy within a point, and "
            "within 0.5 of each other: accuracy hides nothing of this choice."
        )


def test_modes_and_bits_are_not_averaged():
    def by_mode(row):
        loss = {"ptq": 0.04, "qat": 0.01}[row["mode"]] * (row["site"] == "pre_fire")
        loss *= row["bits"] / 2
        return {"accuracy": BASE - loss}

    _, site, _ = ablation.find_choices(a_run(CONFIG, by_mode))
    lines = ablation.describe_effect(site).splitlines()
    for line, loss in zip(lines, ("4.00", "8.00", "1.00", "2.00"), strict=True):
        assert f"by -{loss} points on the mean (-{loss} to -{loss})" in line


def test_collapsed_pairs_are_told_apart():
    def collapses(row):
        some = row["method"] == "lq_net" or row["mode"] == "qat"
        if row["quantize_all"] and some:
            return {"accuracy": 0.1, "emd": 0.2}
        return changed(row)

    *_, scope = ablation.find_choices(a_run(CONFIG, collapses))
    lines = ablation.describe_effect(scope).splitlines()
    for line in lines[:2]:
        assert "over 6 pairs" in line
        assert "; over 4 pairs, changes accuracy by -4.00 points" in line
        assert line.endswith("without the pairs of which at least one collapsed.")
    assert "over 6 pairs" in lines[2]


def test_one_pair_has_no_range():
    def all_but_one_collapse(row):
        alone = (row["method"], row["clip"]) == ("lq_net", 1.0)
        if row["quantize_all"] and not alone:
            return {"accuracy": 0.1, "emd": 0.2}
        return changed(row)

    *_, scope = ablation.find_choices(a_run(CONFIG, all_but_one_collapse))
    for line in ablation.describe_effect(scope).splitlines():
        told = line.split("; ")[1]
        assert told == (
            "over 1 pair, changes accuracy by -5.00 points and EMD by +0.0100, beyond "
            "the noise floor, without the pairs of which at least one collapsed."
        )


def test_without_an_ablation_the_grids_are_compared_at_all_bits():
    (grid,) = ablation.find_choices(a_run())
    assert grid.title == "Grid type"
    assert {one.row["bits"] for one, _ in grid.pairs} == {2, 4, 8}
    one_grid = StudyConfig(bits=(2,), grid=("mid_rise",))
    assert ablation.find_choices(a_run(one_grid)) == []


def test_the_study_may_be_the_other_side():
    """Blocks are the one side and everywhere the other, whichever the config has."""
    config = StudyConfig(
        bits=(2,), modes=("ptq",), ablation_bits=(2,), quantize_all=True
    )
    *_, scope = ablation.find_choices(a_run(config, changed))
    assert {one.row["quantize_all"] for one, _ in scope.pairs} == {False}
    assert "changes accuracy by -4." in ablation.describe_effect(scope)
