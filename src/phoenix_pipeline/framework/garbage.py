"""Libraries are a million objects; to look for garbage among them took a fifth of a short command.

Nodes have it looked for as often as Python does, but for what was there before: cycles may hold
tensors.
"""

import atexit
import gc

from kedro.framework.hooks import hook_impl

_USUAL = gc.get_threshold()
_RARELY = 50_000


def look_rarely() -> None:
    """Look for garbage at every 50,000th object, until a pipeline runs."""
    gc.set_threshold(_RARELY, *_USUAL[1:])


class GarbageHook:
    """Ends :func:`look_rarely` once everything is imported; what that is stays as it is."""

    @hook_impl(trylast=True)
    def before_pipeline_run(self) -> None:
        """Leave out what is there by now, once for each process."""
        gc.set_threshold(*_USUAL)
        if not gc.get_freeze_count():
            gc.freeze()
            # Else libraries say at the end that they were not cleaned up.
            atexit.register(gc.unfreeze)
