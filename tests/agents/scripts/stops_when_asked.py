import signal
import sys
import time


def stop(*_):
    print("tidied up")
    sys.exit(0)


signal.signal(signal.SIGTERM, stop)
time.sleep(600)
