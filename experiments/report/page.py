"""The report as one self-contained HTML file, which loads nothing."""

import base64
import struct
from collections.abc import Sequence
from html import escape
from typing import Any

from experiments.console import format_duration
from experiments.report.findings import findings
from experiments.report.formats import DEFINITIONS, FOLDER, emd_text, percent, plain
from experiments.report.names import FLOORS
from experiments.report.pictures import Picture
from experiments.report.run import Run, describe_run, describe_unfinished, study_command
from experiments.report.table import TEXT_COLUMNS, Verdict, group_rows, label, row_cells
from snnjax.firing._drift import baselines, noise_floors

TITLE = "Accuracy and firing under quantization"
# Figures with a section of their own.
_ELSEWHERE = ("over_bits", "prediction")
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; "
POLICY += "script-src 'unsafe-inline'"
STYLE = (FOLDER / "page.css").read_text("utf-8")
SORT = (FOLDER / "sort.js").read_text("utf-8")


def html(
    runs: Sequence[Run], judged: Sequence[Verdict], pictures: Sequence[Picture]
) -> str:
    """Return the page of ``runs``, whose rows in the table's order are ``judged``."""
    over_bits = [_figure(p) for p in pictures if p.name.startswith("over_bits")]
    predicted = [_figure(p) for p in pictures if p.name == "prediction"]
    others = [_figure(p) for p in pictures if not p.name.startswith(_ELSEWHERE)]
    others += [_layer_table(run) for run in runs if run.rows]
    sections = {
        "Accuracy and EMD over bits": over_bits or ["<p>No quantized row yet.</p>"],
        "All rows": [_html_table(judged)],
        "Layer by layer": others,
        "Does EMD predict anything?": predicted,
        "Definitions": [_terms(DEFINITIONS)],
        "Make it again": [_origin(run) for run in runs],
    }
    name = escape(", ".join(run.name for run in runs))
    parts = [
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{name}: {TITLE}</title>\n<style>{STYLE}</style>\n</head>\n<body>",
        f"<h1>{TITLE}</h1>",
        *(_head(run) for run in runs),
    ]
    for title, body in sections.items():
        parts += [f"<h2>{title}</h2>", *body] if body else []
    parts += [f"<script>{SORT}</script>\n</body>\n</html>\n"]
    return "\n".join(parts)


def _head(run: Run) -> str:
    """Return the run's description, findings, and its baseline's numbers."""
    text = f"<h3>{escape(describe_run(run))}</h3>"
    if left := describe_unfinished(run):
        text += f"<p><strong>{escape(left)}</strong></p>"
    sentences = "".join(f"<li>{escape(s)}</li>" for s in findings(run.judged_main))
    tiles = {}
    for row in (bases := baselines(run.main)):
        seed = f", seed {row['seed']}" if len(bases) > 1 else ""
        tiles[f"baseline accuracy{seed}"] = percent(row["accuracy"])
        tiles[f"baseline mean rate{seed}"] = f"{row['mean_rate']:.4f}"
        tiles[f"baseline dead{seed}"] = percent(row["dead_fraction"])
    for name, floor in noise_floors(run.main).items():
        tiles[f"EMD floor: {FLOORS[name]}"] = emd_text(floor)
    divs = (f"<div><b>{escape(v)}</b>{escape(k)}</div>" for k, v in tiles.items())
    text += f'<ol class="card">{sentences}</ol>'
    return f'{text}<div class="tiles">{"".join(divs)}</div>'


def _origin(run: Run) -> str:
    """Return command, config and versions of the run."""
    starts = run.info.get("starts", [])
    info: dict[str, Any] = {"run time": format_duration(run.seconds)}
    info["commits"] = list(dict.fromkeys(start.get("commit") for start in starts))
    for part in ("config", "versions"):
        prefix = "" if part == "config" else f"{part} "
        info |= {f"{prefix}{k}": v for k, v in run.info.get(part, {}).items()}
    return (
        f"<h3>{escape(run.name)}</h3>"
        f"<pre>{escape(study_command(run.info['config']))}</pre>"
        '<p class="soft">With --data-dir where prepared data lie elsewhere, and a '
        "fresh folder as --out: in the old one, finished rows are kept.</p>"
        + _terms({key: plain(value) for key, value in info.items()})
    )


def _terms(terms: dict[str, str]) -> str:
    items = (f"<dt>{escape(k)}</dt><dd>{escape(v)}</dd>" for k, v in terms.items())
    return f"<dl>{''.join(items)}</dl>"


def _figure(picture: Picture) -> str:
    caption = f"<figcaption>{escape(picture.caption)}</figcaption>"
    if not picture.png:
        return f"<figure>{caption}</figure>"
    # A PNG's width and height stand at its byte 16; two of its pixels make one here.
    width, height = (n // 2 for n in struct.unpack(">II", picture.png[16:24]))
    data = base64.b64encode(picture.png).decode()
    return (
        f'<figure><div class="scroll"><img width="{width}" height="{height}" '
        # Smaller than this its letters cannot be read: a phone scrolls.
        f'style="min-width:{0.83 * width:.0f}px" alt="{escape(picture.name)}" '
        f'src="data:image/png;base64,{data}"></div>'
        f"{caption}</figure>"
    )


def _html_table(judged: Sequence[Verdict]) -> str:
    titled = group_rows(judged)
    if not titled:
        return "<p>No row is finished yet.</p>"
    columns = list(row_cells(next(iter(titled.values()))[0]))
    kinds = {c: "text" if c in TEXT_COLUMNS else "" for c in columns}
    kinds |= {"EMD": "judged", "drift": "text judged"}
    head = "".join(
        f'<th class="{kinds[c]}" scope="col"><button>{c}</button></th>' for c in columns
    )
    bodies = ""
    for title, some in titled.items():
        bodies += f'<tbody><tr class="group"><th colspan="{len(columns)}" '
        bodies += f'scope="rowgroup">{escape(title)}</th></tr>'
        for v in some:
            tds = "".join(
                f'<td class="{kinds[c]}">{escape(text)}</td>'
                for c, text in row_cells(v).items()
            )
            bodies += f'<tr class="{escape(v.state)}">{tds}</tr>\n'
        bodies += "</tbody>"
    return (
        '<p class="soft">Grey EMDs lie within the noise floor; press a heading to '
        'sort.</p><div class="scroll"><table class="wide"><thead><tr>'
        f"{head}</tr></thead>{bodies}</table></div>"
    )


def _layer_table(run: Run) -> str:
    """Return the EMD of each layer and row, folded."""
    layers = list(run.judged[0].row["emd"])
    head = "".join(f'<th scope="col">{escape(layer)}</th>' for layer in layers)
    lines = ""
    for v in run.judged:
        emds = (v.row["emd"].get(layer) for layer in layers)
        tds = "".join(f"<td>{emd_text(e)}</td>" for e in emds)
        lines += f'<tr><td class="text">{escape(label(v.row))}</td>'
        lines += f"<td>{v.row['seed']}</td>{tds}</tr>\n"
    return (
        f"<details><summary>EMD of each layer in numbers, {escape(run.name)}</summary>"
        '<div class="scroll"><table><thead><tr><th class="text" scope="col">row</th>'
        f'<th scope="col">seed</th>{head}</tr></thead><tbody>{lines}</tbody></table>'
        "</div></details>"
    )
