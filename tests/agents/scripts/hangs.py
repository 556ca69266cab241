"""Ignores what asks it to end; so do its child and its daemon, which has no environment left to be known by.

Their pids go to the file named on stdin.
"""

import os
import signal
import subprocess
import sys
import time

for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
    signal.signal(number, signal.SIG_IGN)
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
reader, writer = os.pipe()
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.write(writer, str(os.getpid()).encode())
        os.closerange(0, 256)
        os.execve(sys.executable, [sys.executable, "-c", "import time; time.sleep(600)"], {})
    os._exit(0)
daemon = os.read(reader, 20).decode()
target = sys.stdin.read()
with open(target + ".new", "w") as file:
    file.write(f"{os.getpid()} {child.pid} {daemon}")
os.rename(target + ".new", target)
time.sleep(600)
