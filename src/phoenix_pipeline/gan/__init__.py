"""The DCGAN (Radford et al., arXiv 1511.06434): networks, local training, sampling, export."""
