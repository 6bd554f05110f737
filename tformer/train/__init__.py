"""The training commands: ``python -m tformer.train translation|charlm|diffusion``."""
