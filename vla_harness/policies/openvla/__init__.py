"""OpenVLA and OpenVLA-OFT: the published checkpoints on plain torch.

configuration  what a checkpoint's JSON files say        vision    the two vision transformers and the projector
weights        tensor names -> parameters, loading       language  LLaMA with a static key-value cache
images         frame -> pixels, plain and as on LIBERO   model     both together: prefill and decoding steps
actions        tokens -> actions, statistics             policy    the harness's Policy
"""
