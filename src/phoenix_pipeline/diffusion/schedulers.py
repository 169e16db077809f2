"""diffusers' schedulers as the settings ask for them: which timesteps a sampler visits."""

from itertools import pairwise
from typing import Any

from phoenix_pipeline.config import NoiseConfig, SamplingConfig
from phoenix_pipeline.diffusion.noise import build_scheduler
from phoenix_pipeline.errors import SettingsError

# The cosine schedule has almost no signal at the last steps; the log-SNR starts here, as the
# authors of DPM-Solver++ (arXiv 2211.01095) advise for it.
_COSINE_LAMBDA_MIN = -5.1


def prepare_scheduler(noise: NoiseConfig, sampling: SamplingConfig, steps: int) -> Any:
    """Return diffusers' scheduler of ``sampling.sampler``, which visits ``steps`` timesteps.

    Raises:
        SettingsError: more steps than the forward process has, or a spacing that cannot make
            exactly as many different ones.
    """
    if not 1 <= steps <= noise.num_train_timesteps:
        raise SettingsError(
            f"sampling.num_steps is {steps}, but the forward process has "
            f"{noise.num_train_timesteps} steps; set it to 1..{noise.num_train_timesteps} or raise "
            "model.noise.num_train_timesteps"
        )
    scheduler = _build_sampler(noise, sampling)
    _set_timesteps(scheduler, steps)
    visited = scheduler.timesteps.tolist()
    if len(visited) != steps or visited[-1] < 0 or any(a <= b for a, b in pairwise(visited)):
        raise SettingsError(
            f"sampling.num_steps={steps} with timestep_spacing={sampling.timestep_spacing} makes "
            f"{sampling.sampler} visit a timestep twice or one below 0; set sampling.num_steps "
            "lower or choose another sampling.timestep_spacing"
        )
    return scheduler


def _set_timesteps(scheduler: Any, steps: int) -> None:
    """Have ``scheduler`` visit ``steps`` timesteps."""
    import diffusers

    scheduler.set_timesteps(steps)
    visited = scheduler.timesteps.tolist()
    exact = len(visited) == steps and visited[-1] >= 0
    if isinstance(scheduler, diffusers.DPMSolverMultistepScheduler) and not exact:
        # With spacing "trailing" diffusers leaves out the steps that the clipped log-SNR forbids,
        # or rounds the last one to -1: spread all of them over the timesteps that are allowed.
        last = visited[0] + 1
        spread = [round(last * (steps - i) / steps) - 1 for i in range(steps)]
        scheduler.set_timesteps(timesteps=spread)


def _build_sampler(noise: NoiseConfig, sampling: SamplingConfig) -> Any:
    import diffusers

    options: dict[str, Any] = {"timestep_spacing": sampling.timestep_spacing}
    if sampling.sampler == "dpm_solver++":
        options["algorithm_type"] = "dpmsolver++"
        if noise.schedule == "cosine":
            options["lambda_min_clipped"] = _COSINE_LAMBDA_MIN
    schedulers = {
        "ddpm": diffusers.DDPMScheduler,
        "ddim": diffusers.DDIMScheduler,
        "dpm_solver++": diffusers.DPMSolverMultistepScheduler,
        "unipc": diffusers.UniPCMultistepScheduler,
    }
    trained_with: Any = build_scheduler(noise)
    return schedulers[sampling.sampler].from_config(trained_with.config, **options)
