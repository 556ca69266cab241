import sys
import time

words = sys.stdin.read().split()
for word in words[1:]:
    print(f"::relaymesh spend {word}", file=sys.stderr, flush=True)
time.sleep(float(words[0]))
