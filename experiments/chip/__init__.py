"""What a chip pays for the firing of quantized networks: SANA-FE's model of Loihi.

pip install sanafe        # into an environment of its own: it is GPL
python -m experiments.chip --sanafe-python PATH/bin/python
"""
