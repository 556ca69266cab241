import sys

print("out\nof\norder " + "x" * 1000)
print("first cause", file=sys.stderr)
sys.exit(3)
