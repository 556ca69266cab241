"""A simulated mesh: the real core, virtual time, a network that misbehaves as told. Same seed, same run, everywhere.

kernel.py    time, events, the trace hash            network.py  loss, delay, partitions per directed link
machine.py   one node: its core, its clock, crashes  scenario.py what goes wrong when: the file format
run.py       one run: cluster + scenario + checks    figure.py   the experiments behind docs/performance.md
shrink.py    the shortest fault list that still fails
"""
