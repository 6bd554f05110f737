"""NVIDIA's GR00T N1.5: Eagle 2.5 reads images and words, a diffusion transformer writes sixteen actions."""
