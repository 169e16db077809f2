"""The DDPM (Ho et al., arXiv 2006.11239): U-Net, forward process, local training, samplers."""
