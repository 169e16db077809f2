"""The samplers by name. A new one is a file here, an entry, and its name in ``SamplingConfig``."""

from phoenix_pipeline.diffusion.samplers.ddim import DDIM
from phoenix_pipeline.diffusion.samplers.ddpm import DDPM
from phoenix_pipeline.diffusion.samplers.dpm_solver import DPM_SOLVER, UNIPC
from phoenix_pipeline.diffusion.samplers.flow import EULER, HEUN
from phoenix_pipeline.diffusion.samplers.steps import NewSteps, Sampler, TakeStep
from phoenix_pipeline.registry import Registry

SAMPLERS = Registry(
    "samplers",
    {
        "ddpm": DDPM,
        "ddim": DDIM,
        "dpm_solver++": DPM_SOLVER,
        "unipc": UNIPC,
        "euler": EULER,
        "heun": HEUN,
    },
)

__all__ = ["SAMPLERS", "NewSteps", "Sampler", "TakeStep"]
