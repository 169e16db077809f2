"""The federated program on Flower's Message API: the only package that imports ``flwr``.

``client_app`` translates messages into local training, ``strategy`` aggregates, ``engines`` carry
the messages, ``server`` runs the rounds. Layers that stay on clients and threshold filtering
belong here, beside the strategy.
"""

import logging

import flwr  # noqa: F401  (its import installs a log handler, which the next line removes)

_flwr = logging.getLogger("flwr")
_flwr.handlers.clear()
# Its INFO lines repeat what this package logs once per round.
_flwr.setLevel(logging.WARNING)
