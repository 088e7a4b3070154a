"""Counts primes, and says on stderr that it does: both streams arrive in the order they were written."""

import sys

print("counting …", file=sys.stderr)
limit = 100_000
sieve = bytearray([1]) * limit
sieve[0:2] = b"\0\0"
for n in range(2, int(limit**0.5) + 1):
    if sieve[n]:
        sieve[n * n :: n] = bytes(len(range(n * n, limit, n)))
print(f"{sum(sieve)} primes below {limit}")
