"""The study: train a baseline, quantize it in every way, measure how it fires."""
