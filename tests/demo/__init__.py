"""The demonstration: ``python -m demo`` runs the main job on real playbooks."""
