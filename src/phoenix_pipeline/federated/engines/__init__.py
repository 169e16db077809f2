"""What carries the messages between server and clients; one module per ``federation.engine``.

An engine is one function, ``train(job, folder, watch)``: it makes the clients reachable and runs
the program of ``federated.program`` over them.
"""
