"""The chart on a real Kubernetes; run by ``make test-kubernetes``."""
