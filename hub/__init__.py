"""ConnectGain Hub: the processes that answer requests and sockets, and everything they share."""
