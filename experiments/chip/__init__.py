"""The price of firing of quantized networks on a chip: SANA-FE's model of Loihi.

pip install sanafe        # into an environment of its own: it is GPL
python -m experiments.chip --sanafe-python PATH/bin/python
"""
