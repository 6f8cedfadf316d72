"""Pipelines that make no pictures, films or sounds."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np

from zoo.entry import Entry, Request
from zoo.framework import Framework

TORCH = ("torch",)
VOCABULARY = 16


def _llada(fx: Framework) -> Any:
    from transformers import LlamaConfig

    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=32,
    )
    return fx.pipeline(
        "LLaDA2Pipeline",
        model=fx.text_model("LlamaForCausalLM", config),
        scheduler=fx.scheduler("BlockRefinementScheduler", block_length=4),
        tokenizer=None,
    )


def _llada_arguments(fx: Framework, pipeline: Any, request: Request) -> dict[str, Any]:
    ids = np.random.default_rng(1).integers(1, VOCABULARY - 1, size=(request.prompts, 4))
    return {
        "input_ids": fx.tensor(ids, "int64"),
        "gen_length": 4,
        "block_length": 4,
        "num_inference_steps": request.steps,
        "mask_token_id": VOCABULARY - 1,
        "generator": fx.generator(),
        "output_type": "seq",
    }


class _Processor:
    """Numbers instead of words."""

    def __init__(self, fx: Framework) -> None:
        self._fx = fx
        self.tokenizer = SimpleNamespace(eos_token_id=None)

    def apply_chat_template(self, messages: list[Any], **_: Any) -> dict[str, Any]:
        ids = np.random.default_rng(1).integers(3, VOCABULARY, size=(len(messages), 4))
        return {"input_ids": self._fx.tensor(ids, "int64")}


def _gemma(fx: Framework) -> Any:
    from transformers import DiffusionGemmaConfig, DiffusionGemmaTextConfig

    text = DiffusionGemmaTextConfig(
        vocab_size=VOCABULARY,
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        head_dim=8,
        global_head_dim=8,
        sliding_window=8,
        num_experts=2,
        top_k_experts=1,
        moe_intermediate_size=8,
        max_position_embeddings=64,
    )
    config = DiffusionGemmaConfig(
        text_config=text,
        vision_config={
            "hidden_size": 16,
            "intermediate_size": 16,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "num_key_value_heads": 2,
            "head_dim": 8,
        },
        canvas_length=4,
    )
    return fx.pipeline(
        "DiffusionGemmaPipeline",
        model=fx.text_model("DiffusionGemmaForBlockDiffusion", config),
        scheduler=fx.scheduler("BlockRefinementScheduler"),
        processor=_Processor(fx),
    )


def _gemma_arguments(fx: Framework, pipeline: Any, request: Request) -> dict[str, Any]:
    return {
        "prompt": ["a poem"] * request.prompts,
        "gen_length": 4,
        "num_inference_steps": request.steps,
        "confidence_threshold": None,
        "generator": fx.generator(),
        "output_type": "seq",
    }


def _proteina(fx: Framework) -> Any:
    times = ("time_emb_bb_ca", "time_emb_local_latents")
    shared = {
        "latent_dim": 4,
        "nlayers": 1,
        "token_dim": 16,
        "nheads": 2,
        "dim_cond": 8,
        "pair_repr_dim": 8,
        "token_type_emb_dim": 4,
    }

    def scheduler() -> Any:
        return fx.scheduler(
            "RFD4ProteinaScheduler",
            schedule_mode="log",
            noise_mode="tan",
            tsr_k=1.0,
            tsr_sigma=1.0,
            tail_steps=1,
            tail_step_multiplier=2,
        )

    return fx.pipeline(
        "RFD4ProteinaPipeline",
        transformer=fx.model(
            "RFD4ProteinaTransformer",
            cath_emb_dim=4,
            t_emb_dim=8,
            seq_sep_dim=8,
            xt_pair_dist_dim=4,
            feats_seq=("xt_bb_ca", "xt_local_latents", "token_type"),
            feats_cond_seq=times,
            feats_pair_repr=("xt_bb_ca_pair_dists",),
            feats_pair_cond=times,
            tri_mult_c=8,
            **shared,
        ),
        vae=fx.model(
            "RFD4ProteinaAutoencoder",
            atom37_mask=[[True] * 37] * 147,
            allowed_residue_types=[[True] * 147] * 7,
            encoder_feats_seq=("token_type",),
            decoder_feats_seq=("ca_coors_nm", "z_latent_seq", "token_type"),
            **shared,
        ),
        bb_ca_scheduler=scheduler(),
        local_latents_scheduler=scheduler(),
        recycle_depths=[0] * Request().steps,
    )


def _proteina_arguments(fx: Framework, pipeline: Any, request: Request) -> dict[str, Any]:
    shape = (request.prompts, 4)
    yes, zeros = fx.tensor(np.ones(shape), "bool"), fx.tensor(np.zeros(shape), "int64")
    return {
        "padding_mask": yes,
        "is_in_context_conditioning": ~yes,
        "supports_local_latent": yes,
        "token_type": zeros,
        "atom37_mask": fx.tensor(np.ones((*shape, 37)), "bool"),
        "conditioning_features": {
            "condition_sequence_1_residue": zeros,
            "molecule_iid": zeros,
        },
        "num_designs_per_prompt": request.images,
        "generator": [fx.generator(seed) for seed in range(request.rows)],
    }


_ONE_TEXT = {"two images per prompt": "the call has no number of texts per prompt"}

ENTRIES = [
    Entry(
        "DiffusionGemmaPipeline",
        _gemma,
        _gemma_arguments,
        impossible=_ONE_TEXT,
        frameworks=TORCH,
    ),
    Entry("LLaDA2Pipeline", _llada, _llada_arguments, impossible=_ONE_TEXT, frameworks=TORCH),
    Entry("RFD4ProteinaPipeline", _proteina, _proteina_arguments, frameworks=TORCH),
]
