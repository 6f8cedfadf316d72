"""Decoders of previews leave mindone's VAEs, and what is drawn after them, as they were."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mindspore as ms
import numpy as np
import pytest
from decoded_runs import autoencoder, latents, magvit, numbers, pipeline_with, wan

from unicb.latents import Layout
from unicb.latents.decoders import decoder_for
from unicb_mindspore import backend


def test_nothing_is_left_changed() -> None:
    vae = autoencoder()
    state = {value.name: value.asnumpy().copy() for value in vae.get_parameters()}
    attributes = dict(vars(vae))

    def draws(x: Any) -> Any:
        ms.mint.randn(3)
        np.random.normal()
        return x[:, :3]

    pipe = pipeline_with(vae)
    made = [decoder_for(one, pipe, None, Layout("bchw"), backend) for one in ("vae", draws)]
    ms.manual_seed(5)
    np.random.seed(5)
    wanted = ms.mint.randn(3).asnumpy(), np.random.normal()
    ms.manual_seed(5)
    np.random.seed(5)
    for decoder in made:
        decoder.decode(latents(2, 4, 4, 4), None, "middle")
    np.testing.assert_array_equal(ms.mint.randn(3).asnumpy(), wanted[0])
    assert np.random.normal() == wanted[1]
    assert all(np.array_equal(v.asnumpy(), state[v.name]) for v in vae.get_parameters())
    assert vars(vae) == attributes


@pytest.mark.parametrize("kind", [wan, magvit])
def test_video_that_follows_a_preview(kind: Callable[[], Any]) -> None:
    """mindone's Magvit keeps frames of one video for the next: of previews, it must not."""
    vae, fresh = kind(), kind()
    ms.load_param_into_net(fresh, {p.name: p for p in vae.get_parameters()})
    attributes = dict(vars(vae))
    decoder = decoder_for(vae, pipeline_with(None), None, Layout("bcthw"), backend)
    shown = [decoder.decode(latents(1, 16, 3, 4, 4), None, "animation").tensor for _ in range(2)]
    assert vars(vae) == attributes
    np.testing.assert_allclose(numbers(shown[0]), numbers(shown[1]), atol=1e-2)
    found, wanted = (numbers(v.decode(latents(1, 16, 2, 4, 4))[0]) for v in (vae, fresh))
    np.testing.assert_allclose(found, wanted, atol=1e-4)
    assert wanted.std() > 0.01
