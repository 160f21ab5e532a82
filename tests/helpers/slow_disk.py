"""The study's command on a disk that takes its time.

Otherwise hardly a kill or a signal would meet what is being written.
"""

PROGRAM = (
    "import os, runpy, time\n"
    "sync = os.fsync\n"
    "os.fsync = lambda file: (time.sleep(0.05), sync(file))[1]\n"
    "runpy.run_module('experiments.study', run_name='__main__', alter_sys=True)"
)
