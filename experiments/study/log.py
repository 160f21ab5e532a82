"""The log of training: a JSON line a logging step, and TensorBoard."""

import datetime
import importlib
import importlib.util
import json
from typing import Any

from experiments.study.store import on_primary
from snnjax.runs import Store


class Log:
    """``log.jsonl`` of a run folder, and ``tensorboard/`` where that is installed.

    Lines are for people and plots; nothing is computed from them. Hosts call together
    what the primary one writes.
    """

    def __init__(self, store: Store):
        self.store = store
        self.path = store.path / "log.jsonl"
        self._writers: dict[str, Any] = {}

    @on_primary
    def resume(self, row: str, step: int) -> None:
        """Drop the lines of a row after ``step``, which will be logged again.

        A line that a kill cut short is dropped too.
        """
        if not self.path.exists():
            return
        text = self.path.read_text(encoding="utf-8", errors="replace")
        lines = [x for x in text.splitlines(keepends=True) if x.endswith("\n")]
        kept = [line for line in lines if not _is_after(line, row, step)]
        self.store.write_text(self.path.name, "".join(kept))

    @on_primary
    def write(self, row: str, step: int, **values: Any) -> None:
        """Write one line: the row, the step, the time, and ``values``."""
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        line = json.dumps({"row": row, "step": step, "time": now, **values})
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(line + "\n")
        if (writer := self._writer(row)) is not None:
            for name, value in values.items():
                if isinstance(value, (int, float)):
                    writer.add_scalar(name, value, step)

    @on_primary
    def close(self, row: str) -> None:
        """Close the log of a row that is done."""
        if (writer := self._writers.pop(row, None)) is not None:
            writer.close()

    def _writer(self, row: str) -> Any:
        if importlib.util.find_spec("tensorboard") is None:
            return None
        if row not in self._writers:
            summary = importlib.import_module("tensorboard.summary")
            self._writers[row] = summary.Writer(
                str(self.store.path / "tensorboard" / row)
            )
        return self._writers[row]


def _is_after(line: str, row: str, step: int) -> bool:
    try:
        logged = json.loads(line)
        return logged["row"] == row and logged["step"] > step
    except (ValueError, KeyError, TypeError):
        return True  # of another program, or cut in the middle
