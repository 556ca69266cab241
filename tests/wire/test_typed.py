"""Types are prepared before threads meet them."""

from __future__ import annotations

import subprocess
import sys
import textwrap

# In a process of its own: without the lock this ends in a segmentation fault of the C code, not in an exception.
PROGRAM = """
import sys, threading, types
import msgspec
from relaymesh.wire.typed import decoder
sys.setswitchinterval(1e-6)
SOURCE = '''
from __future__ import annotations
import msgspec
class A(msgspec.Struct):
    a: int
    b: str
    c: tuple[int, ...] = ()
    d: dict[str, int] = {}
class B(msgspec.Struct):
    x: A
    y: tuple[A, ...]
class C(msgspec.Struct):
    x: B
    y: tuple[B, ...]
'''
A = b'{"a":1,"b":"x","c":[1],"d":{}}'
B = b'{"x":' + A + b',"y":[' + A + b']}'
C = b'{"x":' + B + b',"y":[' + B + b']}'
for number in range(300):
    module = types.ModuleType(f"made_{number}")
    sys.modules[module.__name__] = module
    exec(SOURCE, module.__dict__)
    for kind in (module.A, module.B, module.C):
        kind.__module__ = module.__name__
    barrier = threading.Barrier(4)
    def work():
        barrier.wait()
        decoder(module.C).decode(C)
        decoder(module.B).decode(B)
    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
print("survived")
"""


def test_threads_may_meet_a_nested_type_for_the_first_time_at_once() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(PROGRAM)], capture_output=True, text=True, timeout=60, check=False
    )

    assert (ended.returncode, ended.stdout.strip()) == (0, "survived"), ended.stderr[-500:]
