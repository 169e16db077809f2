"""What carries the messages between server and clients; one module per ``federation.engine``."""
