"""The README's Python runs as it stands."""

import re
from pathlib import Path

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)


def test_every_block_runs_in_order():
    names: dict = {}
    for block in BLOCKS:
        exec(compile(block, "README.md", "exec"), names)
    # What the text around them promises.
    assert names["before"].accuracy > 0.8
    assert names["report"].emd_mean > 0
    assert names["w1"] == 0.375
    assert names["spikes"].shape == (4, 3)
