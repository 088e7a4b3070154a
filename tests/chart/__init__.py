"""The Helm chart: what it renders, what it refuses, and whether Kubernetes takes it."""
