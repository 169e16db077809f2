"""The registered arms: one line each; an arm's settings are its block in ``conf``."""

ARMS: tuple[str, ...] = (
    "centralized",
    "fedavg",
    "data_sharing",
    "personalization",
    "dcgan",
)
