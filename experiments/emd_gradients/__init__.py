"""Measure each form of differentiable EMD as an estimator and as a training signal.

    python -m experiments.emd_gradients

``losses`` has the forms, ``estimators`` measures them on known rates,
``drift_correction`` trains with them, ``report`` makes the tables and figures.
"""
