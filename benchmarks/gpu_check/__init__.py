"""``make gpu-check``: what only a card can show, within four minutes.

``__main__`` starts every part as a process of its own (``children``): first each arm of
``cifar10_h200`` (``arms``, in a project that ``project`` makes), then the speeds (``speed``).
``report`` knows rows and goals, and writes them as they come.
"""
