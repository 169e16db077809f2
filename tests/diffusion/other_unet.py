"""A U-Net that this package's own forward passes do not know."""

from typing import Any

from diffusers import UNet2DModel


def build_other_unet(**options: Any) -> UNet2DModel:
    """Return one for 8 x 8 grey images whose levels are joined by residual blocks."""
    return UNet2DModel(
        sample_size=8,
        in_channels=1,
        out_channels=1,
        block_out_channels=(8, 8),
        down_block_types=("DownBlock2D", "ResnetDownsampleBlock2D"),
        up_block_types=("ResnetUpsampleBlock2D", "UpBlock2D"),
        layers_per_block=1,
        attention_head_dim=4,
        norm_num_groups=4,
        **options,
    )
