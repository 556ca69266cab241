"""Five million lines on stderr, and one in their midst that asks for something."""

import os

block = b"noise\n" * 10_000
for number in range(500):
    view = memoryview(block + (b"::relaymesh snooze 1.5\n" if number == 250 else b""))
    while view:
        view = view[os.write(2, view) :]
