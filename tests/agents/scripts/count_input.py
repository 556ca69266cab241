import sys

print(f"  {len(sys.stdin.buffer.read())}  ")
