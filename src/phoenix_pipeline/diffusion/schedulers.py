"""diffusers' schedulers as the settings ask for them: which timesteps a sampler visits."""

from collections.abc import Iterator
from itertools import islice, pairwise
from typing import Any

from phoenix_pipeline.config import NoiseConfig, SamplingConfig
from phoenix_pipeline.diffusion.noise import FLOW, build_scheduler
from phoenix_pipeline.diffusion.samplers import SAMPLERS
from phoenix_pipeline.errors import SettingsError
from phoenix_pipeline.registry import look_up

# Sampling starts from pure noise, so the first timestep must hold hardly anything of an image. With
# this share of it a Gaussian's mean comes out 1 % off; with 0.58 ("leading" in 600 steps) 7 %.
_LARGEST_SIGNAL = 0.1
_SPACINGS = ("trailing", "linspace", "leading")


def prepare_scheduler(
    noise: NoiseConfig, sampling: SamplingConfig, steps: int, clips: bool = True
) -> Any:
    """Return diffusers' scheduler of ``sampling.sampler``, which visits ``steps`` timesteps.

    ``clips``: see :func:`~phoenix_pipeline.diffusion.noise.build_scheduler`.
    Raises SettingsError: an unknown sampler, one for other models, more steps than the forward
    process has, a spacing that cannot make exactly as many different ones, or one that starts where
    images still show.
    """
    scheduler = build_sampler(noise, sampling, clips)
    times = SAMPLERS[sampling.sampler].times
    if times is not None:
        if sampling.timestep_spacing != "trailing":
            raise SettingsError(
                f"sampling.timestep_spacing is {sampling.timestep_spacing}, but a flow model is "
                "drawn in equal steps from noise; set sampling.timestep_spacing: trailing"
            )
        scheduler.set_timesteps(sigmas=times(steps))
        return scheduler
    if steps > noise.num_train_timesteps:
        raise SettingsError(
            f"sampling.num_steps is {steps}, but the forward process has "
            f"{noise.num_train_timesteps} steps; possible are "
            f"{' or '.join(_possible(noise, sampling, steps))}"
        )
    set_timesteps(scheduler, steps)
    fault = _fault(scheduler, steps)
    if fault:
        raise SettingsError(
            f"sampling.num_steps={steps} with timestep_spacing={sampling.timestep_spacing} makes "
            f"{sampling.sampler} {fault}; possible are "
            f"{' or '.join(_possible(noise, sampling, steps))}"
        )
    return scheduler


def set_timesteps(scheduler: Any, steps: int) -> None:
    """Have ``scheduler`` visit ``steps`` timesteps, if its spacing can make as many."""
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


def build_sampler(noise: NoiseConfig, sampling: SamplingConfig, clips: bool = True) -> Any:
    """Return diffusers' scheduler of ``sampling.sampler``; raises SettingsError for another."""
    import diffusers

    sampler = look_up(SAMPLERS, sampling.sampler, "sampling.sampler")
    is_flow = noise.prediction_type == FLOW
    if is_flow != (sampler.times is not None):
        serve = [name for name, other in SAMPLERS.items() if is_flow == (other.times is not None)]
        raise SettingsError(
            f"sampling.sampler {sampling.sampler} is not for models of model.noise.prediction_type "
            f"{noise.prediction_type}; allowed are {', '.join(serve)}"
        )
    name, options = sampler.scheduler(noise)
    if not is_flow:
        options = {**options, "timestep_spacing": sampling.timestep_spacing}
    trained_with: Any = build_scheduler(noise, clips)
    return getattr(diffusers, name).from_config(trained_with.config, **options)


def _fault(scheduler: Any, steps: int) -> str:
    """Return what is wrong with the timesteps that ``scheduler`` visits, or an empty text."""
    visited = scheduler.timesteps.tolist()
    if len(visited) != steps or visited[-1] < 0 or any(a <= b for a, b in pairwise(visited)):
        return "visit a timestep twice or one below 0"
    if scheduler.config.rescale_betas_zero_snr and visited[0] != len(scheduler.betas) - 1:
        return (
            f"start at timestep {visited[0]}, but with model.noise.zero_terminal_snr only the last "
            "one holds noise alone"
        )
    signal = scheduler.alphas_cumprod.sqrt()
    # "trailing" starts at the end of the forward process, whatever is left of an image there.
    starts_early = scheduler.config.timestep_spacing != "trailing"
    if starts_early and signal[visited[0]] > max(_LARGEST_SIGNAL, float(signal[-1])):
        return (
            f"start from pure noise at timestep {visited[0]}, where {signal[visited[0]]:.0%} of an "
            "image still show"
        )
    return ""


def _possible(noise: NoiseConfig, sampling: SamplingConfig, steps: int) -> Iterator[str]:
    """Yield the next lower and higher number of steps that works, and the spacings that do."""
    most = noise.num_train_timesteps

    def works(scheduler: Any, n: int) -> bool:
        set_timesteps(scheduler, n)
        return not _fault(scheduler, n)

    same = build_sampler(noise, sampling)
    for numbers in (range(min(steps - 1, most), 0, -1), range(steps + 1, most + 1)):
        nearest = (n for n in numbers if works(same, n))
        yield from (f"sampling.num_steps={n}" for n in islice(nearest, 1))
    if steps <= most:
        for spacing in _SPACINGS:
            other = sampling.model_copy(update={"timestep_spacing": spacing})
            if works(build_sampler(noise, other), steps):
                yield f"sampling.timestep_spacing={spacing}"
    else:
        yield "a larger model.noise.num_train_timesteps"
