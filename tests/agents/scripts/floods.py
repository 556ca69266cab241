import sys

for _ in range(300):
    sys.stdout.write("o" * 10_000)
    sys.stderr.write("e" * 10_000)
print("end")
