"""The bench for differentiable EMD: what each form of it is worth as a gradient.

    python -m experiments.emd_gradients

``losses`` has the forms, ``estimators`` measures them on rates that are known,
``pull`` trains with them, ``report`` makes the tables and figures. Imports run in that
order.
"""
