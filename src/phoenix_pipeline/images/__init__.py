"""Parquet and image folders to one uint8 array and back; the only place that knows [-1, 1].

Nothing here imports torch: ``to_model_range`` and ``to_uint8`` use the methods of the tensor that
they are given.
"""

from phoenix_pipeline.images.decoding import DecodedImage, decode_image
from phoenix_pipeline.images.formats import encode_png, image_grid, to_model_range, to_uint8
from phoenix_pipeline.images.image_set import MAX_SIDE, MIN_SIDE, ImageSet, align_classes
from phoenix_pipeline.images.labels import encodable, readable_name
from phoenix_pipeline.images.reading import count_images, read_images
from phoenix_pipeline.images.sources import ImageSource, find_image_source, find_splits
from phoenix_pipeline.images.stratified import apportion, split_held_out, take_stratified
from phoenix_pipeline.images.writing import (
    GLOBAL_MODEL,
    PngFolderWriter,
    Samples,
    SampleWriter,
    pick_evenly,
    read_samples,
    write_images,
)

__all__ = [
    "GLOBAL_MODEL",
    "MAX_SIDE",
    "MIN_SIDE",
    "DecodedImage",
    "ImageSet",
    "ImageSource",
    "PngFolderWriter",
    "SampleWriter",
    "Samples",
    "align_classes",
    "apportion",
    "count_images",
    "decode_image",
    "encodable",
    "encode_png",
    "find_image_source",
    "find_splits",
    "image_grid",
    "pick_evenly",
    "read_images",
    "read_samples",
    "readable_name",
    "split_held_out",
    "take_stratified",
    "to_model_range",
    "to_uint8",
    "write_images",
]
