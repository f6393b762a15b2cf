"""What probes look at: what a model carries of a scene some seconds ahead, whose ego's way is known."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from drivecast.worldmodel.forecaster.draws import LatentDraws
from drivecast.worldmodel.forecaster.model import Memory, WorldModel
from drivecast.worldmodel.joint_embedding.frames import window_frames
from drivecast.worldmodel.joint_embedding.network import JointEmbedding
from drivecast.worldmodel.recordings.window import Window

# `(batch, second, feature)` of a window, the seconds ahead being given
Representation = Callable[[Window, tuple[int, ...]], Tensor]


def of_joint_embedding(model: JointEmbedding) -> Representation:
    """Its predicted embeddings."""

    def represent(window: Window, seconds: tuple[int, ...]) -> Tensor:
        frames, past = window_frames(window, model.config.dt_s, model.config.stride)
        known = model.observe(frames.frames(0, past))
        moves = frames.moves[:, past - 1 : -1]
        predicted = model.unroll(known, moves[:, : _frame(max(seconds), model) + 1])
        return predicted[:, [_frame(second, model) for second in seconds]]

    return represent


def of_encoder(model: JointEmbedding) -> Representation:
    """The embedding of the present, and the ego's moves up to then: what an encoder alone gives, trained or not."""

    def represent(window: Window, seconds: tuple[int, ...]) -> Tensor:
        frames, past = window_frames(window, model.config.dt_s, model.config.stride)
        known = model.observe(frames.frames(0, past))
        return _with_moves(
            torch.cat([known.embedding, known.context], 1), frames.moves[:, past - 1 : -1], seconds, model
        )

    return represent


def of_raw_state(model: JointEmbedding) -> Representation:
    """What the encoder of `model` looks at, as it is: the present and the frame before it; and the ego's moves."""

    def represent(window: Window, seconds: tuple[int, ...]) -> Tensor:
        frames, past = window_frames(window, model.config.dt_s, model.config.stride)
        seen = frames.seen[:, max(past - 2, 0) : past].flatten(1)
        return _with_moves(seen, frames.moves[:, past - 1 : -1], seconds, model)

    return represent


def of_memory(model: WorldModel) -> Representation:
    """The generative model's memory of the ego, having rolled the others out without latents beside the ego's way."""

    def represent(window: Window, seconds: tuple[int, ...]) -> Tensor:
        memories = _rolled_out(model, window, seconds)
        return torch.stack([torch.cat([each.embedded[:, 0], each.hidden[:, 0]], -1) for each in memories], 1)

    return represent


def _rolled_out(model: WorldModel, window: Window, seconds: tuple[int, ...]) -> Iterator[Memory]:
    """What it remembers at each of those seconds."""
    memory = model.observe(window.history, window.road)
    who = torch.zeros_like(window.present.valid)
    who[:, 0] = True
    latents = LatentDraws(model, sample=False)
    steps = [round(second / model.config.dt_s) for second in seconds]
    for step in range(max(steps)):
        latent = latents.at(step, memory)
        memory = model.step(memory, latent, window.road, window.future[:, step], who)
        if step + 1 in steps:
            yield memory


def _frame(second: int, model: JointEmbedding) -> int:
    """Number of the predicted frame at `second`."""
    return max(round(second / model.config.frame_s) - 1, 0)


def _with_moves(now: Tensor, moves: Tensor, seconds: tuple[int, ...], model: JointEmbedding) -> Tensor:
    """`now (batch, feature)` beside the moves up to each second, those after it zero: `(batch, second, feature)`."""
    most = _frame(max(seconds), model) + 1
    found = []
    for second in seconds:
        until = (torch.arange(most, device=now.device) <= _frame(second, model))[:, None]
        found.append(torch.cat([now, (moves[:, :most] * until).flatten(1)], 1))
    return torch.stack(found, 1)
