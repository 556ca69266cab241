"""Gossip by hand: ticks of a process that lives for a moment, and the keys of the mesh.

run.py         one tick, or several: heartbeat, send, listen, write down
whom.py        seeds, by address              seen_file.py   what was seen, for the next process
key.py         the ring of a root: status, install, use, remove
"""
