import sys
import time

sys.stdout.write("x" * (10_485_760 + 100_000))
sys.stdout.flush()
time.sleep(600)
