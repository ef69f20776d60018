"""A sidecar: sources fill a snapshot; every cycle makes the volume match the snapshot, then the target match the volume."""

__version__ = "0.1.0"
