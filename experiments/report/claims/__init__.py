"""The paper's claims: its numbers, ours beside them, and a verdict by a stated rule.

``evidence`` has what the rules are made of; ``accuracy`` judges the claims that set
accuracy against firing, ``quantizers`` those on single quantizers.
"""

import dataclasses

from experiments.report.claims import accuracy, quantizers
from experiments.report.claims.evidence import NOT_RUN, UNDECIDED, Claim
from experiments.report.run import Run
from experiments.report.settings import group_settings
from experiments.study.config import CLASSES
from snnjax.firing._drift import baselines, has_learned


def judge_claims(run: Run, *, lower: bool = False) -> list[Claim]:
    """Judge all claims by the run's rows of its own site and scope.

    Args:
        run: finished or not.
        lower: judge by the lower floors.
    """
    judged = [v.by_lower if lower else v for v in run.judged_main]
    some = group_settings(judged)
    found = [
        accuracy.equal_accuracy(run, judged),
        quantizers.wide_clip(run, judged, some),
        quantizers.lq_net(run, judged, some),
        accuracy.accuracy_first(run, some),
        quantizers.four_bits(run, some),
        quantizers.unsigned_membranes(run, judged),
        quantizers.lq_membranes(run, some),
    ]
    if all(has_learned(base, CLASSES) for base in baselines(run.main)):
        return found
    nothing = {"verdict": UNDECIDED, "why": "the baseline has not learned"}
    return [
        one if one.verdict == NOT_RUN else dataclasses.replace(one, **nothing)
        for one in found
    ]
