"""What ``personal_layers.layers`` may call the layers of the U-Net, from the output inwards.

``output`` is the output normalisation and convolution, ``last_up_block`` that and the last
upsampling block, ``decoder`` that and all upsampling blocks, ``time_embedding`` the embedding of
the timestep, ``class_embedding`` that of the class of a conditional model. ``adapters`` is the
factor B of every low-rank adapter, while clients share A (FedSA-LoRA, arXiv 2410.01463).
"""

from phoenix_pipeline.config import ModelConfig

OUTPUT = ("conv_norm_out", "conv_out")
_PRESETS = {
    "output": OUTPUT,
    "last_up_block": ("up_blocks.{last}", *OUTPUT),
    "decoder": ("up_blocks", *OUTPUT),
    "time_embedding": ("time_embedding",),
    "class_embedding": ("class_embedding",),
}
_ADAPTERS = {"adapters": ("*.lora_B",)}


def layer_presets(model: ModelConfig) -> dict[str, tuple[str, ...]]:
    """Return the prefixes of layers by their preset's name."""
    last = len(model.unet.block_out_channels) - 1
    presets = {**_PRESETS, **(_ADAPTERS if model.lora.rank else {})}
    return {name: tuple(p.format(last=last) for p in own) for name, own in presets.items()}
