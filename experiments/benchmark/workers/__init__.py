"""Programs that do one contender's work, each in a process of its own.

A worker runs in the environment of its library, so it imports that library and
``serve``, and nothing else of this repository; only ``on_snnjax`` imports snnjax.
"""
