"""Takes events in; also the kernel (settings, logs, metrics, records, store, queue) of both processes."""

__version__ = "0.1.0"
