"""Who holds which image: the partition among clients and the Data Sharing Strategy's pool."""

from phoenix_pipeline.partitioning.clients import partition_clients
from phoenix_pipeline.partitioning.shared_pool import SharedPool, draw_shared_pool

__all__ = ["SharedPool", "draw_shared_pool", "partition_clients"]
