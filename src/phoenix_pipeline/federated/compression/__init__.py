"""Less traffic: how model updates are written for the wire, and which part of a model is sent.

Plain functions on tensors by name; nothing here knows of messages or of Flower.
"""
