"""ConnectGain Hub: the processes that answer requests and sockets, and everything they share."""

__version__ = "0.1.0"
