"""Restore and preserve firing: what calibration and distillation do beyond the study.

    python -m experiments.beyond --preset digits

``arms`` lists the quantizers and what is done to each network, ``networks`` makes and
measures them, ``report`` makes the page from the rows.
"""
