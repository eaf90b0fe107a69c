"""Takes events in; also the kernel of both processes: settings, records, queue, store."""

__version__ = "0.1.0"
