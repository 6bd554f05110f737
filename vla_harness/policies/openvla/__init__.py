"""OpenVLA and OpenVLA-OFT: the published checkpoints on plain torch.

configuration  what config.json says           language     LLaMA with a static key-value cache
loading        a checkpoint, but its weights   model        both together: prefill and decoding steps
weights        tensor names -> parameters      decoding     greedy decoding of batches, as CUDA graphs
images         frame -> pixels                 policy       the harness's Policy, and predict_action
prompt         instruction -> token ids        oft          parallel decoding, heads, diffusion
actions        token ids -> actions            oft_weights  OFT's own files, FiLM with unmerged LoRA
vision         the two transformers            oft_policy   the Policy of OFT checkpoints
"""
