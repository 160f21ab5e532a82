"""Command ``snnjax``: compare recordings of two networks, for people and for CI."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from snnjax import firing, report
from snnjax.report import text

PASSED, FAILED, BAD_INPUT = 0, 1, 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code.

    Args:
        arguments: of the command line; the process's own by default.

    Returns:
        0; 1 where a condition of ``--fail-above`` or ``--fail-on`` is met; 2 for bad
        input, which writes one sentence to the standard error and no file.
    """
    options = _make_parser().parse_args(arguments)
    try:
        return _compare(options)
    except (ValueError, OSError, ImportError) as error:
        print(f"snnjax: {' '.join(str(error).split())}", file=sys.stderr)
        return BAD_INPUT


def _make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="snnjax", description="Measure what quantization did to firing."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    one = commands.add_parser(
        "compare",
        help="compare recordings (.npz of spike counts) with a reference's",
        description="Compare the firing in OTHER with that in REFERENCE, layer by "
        "layer. Exit code: 0; 1 if a --fail condition is met; 2 for bad input. The "
        "format is described in docs/recordings.md.",
    )
    one.add_argument("reference", type=Path, help=".npz of the reference")
    one.add_argument(
        "other", type=Path, help=".npz of the other network, or a folder of them"
    )
    one.add_argument("--html", type=Path, metavar="FILE", help="write the card as page")
    one.add_argument("--json", type=Path, metavar="FILE", help="write its numbers")
    one.add_argument("--margin", type=float, help="EMD that does no harm")
    one.add_argument("--level", type=float, default=0.95, help="confidence level")
    one.add_argument(
        "--fail-above",
        type=float,
        metavar="X",
        help="exit with 1 if the EMD of any layer exceeds X",
    )
    one.add_argument(
        "--fail-on",
        choices=["drift"],
        help="exit with 1 if the verdict is drift",
    )
    return parser


def _compare(options: argparse.Namespace) -> int:
    if options.fail_above is not None and not options.fail_above >= 0:
        raise ValueError(
            f"--fail-above must be a number from 0, got {options.fail_above}"
        )
    reference = firing.load_counts(options.reference)
    folder = options.other.is_dir()
    paths = _list_recordings(options) if folder else [options.other]
    if folder and options.html:
        raise ValueError(
            "--html shows one comparison, got a folder; name one .npz of it"
        )
    cards = {}
    for path in paths:
        other = firing.load_counts(path)
        try:
            cards[path.stem] = report.compare(
                reference, other, margin=options.margin, level=options.level
            )
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None
    if folder:
        ranked = report.rank(cards)
        print("\n".join(text.write_ranking(ranked)))
        if options.json:
            report.write_json({k: c.to_dict() for k, c in ranked.items()}, options.json)
    else:
        (card,) = cards.values()
        if options.html:
            card.to_html(options.html)
        if options.json:
            card.to_json(options.json)
        print(card)
    return FAILED if any(_fails(card, options) for card in cards.values()) else PASSED


def _list_recordings(options: argparse.Namespace) -> list[Path]:
    same = options.reference.resolve()
    paths = sorted(p for p in options.other.glob("*.npz") if p.resolve() != same)
    if not paths:
        raise ValueError(f"{options.other}: no .npz file to compare with the reference")
    return paths


def _fails(card: report.ReportCard, options: argparse.Namespace) -> bool:
    layers = card.verdict.layers.values()
    above = options.fail_above is not None and any(
        layer.measures["emd"].value > options.fail_above for layer in layers
    )
    return above or (options.fail_on == "drift" and card.verdict.state == "drift")


if __name__ == "__main__":
    sys.exit(main())
