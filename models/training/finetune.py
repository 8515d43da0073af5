"""Stage 2: the whole network learns, together with a latent layer and the classes.

The latent sigmoid layer stands between the features and the class layer, as in Lin et al., "Deep
Learning of Binary Hash Codes for Fast Image Retrieval", CVPRW 2015, section 3.2. A second class
layer directly on the features helps the gradient past a short code. Needs PyTorch.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from torch.nn import functional
from torch.utils.data import DataLoader

from models.errors import TrainingError
from models.graphs.latent import with_latent
from models.labelled.corpus import Corpus
from models.preprocess import Preprocess
from models.progress import progress
from models.training.augment import Augmentation, Batches, Examples, normalised
from models.training.checkpoint import Checkpoint
from models.training.losses import descend
from models.training.memory import keep_freed_memory
from models.training.mixing import cut_and_mix
from models.training.trainable import Trainable

_MOST_WORKERS = 16
_CHECKPOINT_S = 120.0


@dataclass(frozen=True)
class FinetuneRecipe:
    """How a network is fine-tuned.

    Attributes:
        epochs: Passes over the images, at most.
        batch: Images per step.
        rate: Highest learning rate of AdamW; it rises over the first fifth of the steps and
            falls to nothing (one-cycle).
        weight_decay: Of AdamW (Loshchilov and Hutter, ICLR 2019).
        smoothing: Share of the target that goes to the other classes.
        feature_share: Weight of the loss of the class layer on the features.
        cutmix: Share of the steps that learn from pictures pasted into each other.
        patience: Epochs without a better validation accuracy after which training stops.
        seed: Fixes the first weights of the new layers, the order and the augmentation.
        augmentation: How examples differ from their pictures.
    """

    epochs: int = 6
    batch: int = 64
    rate: float = 8e-4
    weight_decay: float = 0.02
    smoothing: float = 0.05
    feature_share: float = 0.5
    cutmix: float = 0.0
    patience: int = 3
    seed: int = 0
    augmentation: Augmentation = field(default_factory=Augmentation)


@dataclass(frozen=True)
class Finetuned:
    """What fine-tuning gives.

    Attributes:
        graph: The network with the output `latent` (N, B) beside its features (N, D);
            BatchNorm is not folded.
        history: A record for each epoch: `epoch`, `loss`, `accuracy` on the validation images.
    """

    graph: onnx.ModelProto
    history: tuple[dict[str, float], ...]


def finetune(
    graph: onnx.ModelProto,
    corpus: Corpus,
    *,
    validation: Corpus,
    preprocess: Preprocess,
    bits: int,
    recipe: FinetuneRecipe,
    work: Path,
    device: str = "cpu",
) -> Finetuned:
    """Fine-tune a network on labelled images, or go on where an earlier call was cut off.

    Args:
        graph: Input (N, 3, input_px, input_px) float32, one output, (N, D) float32.
        corpus: The images to learn from.
        validation: Other images of the same classes; the weights of the epoch that does best
            on them are kept.
        preprocess: How pictures become the network's input.
        bits: B, length of the code.
        recipe: The settings.
        work: Folder for checkpoints; the caller deletes it when all is done.
        device: `cpu` or `cuda`; precision is mixed where the device computes in bfloat16.

    Raises:
        Diverged: The loss is not a number.
        TrainingError: The network has an operation that cannot be trained, there are fewer
            images than a batch, or a checkpoint is unusable.
    """
    if len(corpus.paths) < recipe.batch:
        raise TrainingError(
            f"there are {len(corpus.paths)} images and a batch has {recipe.batch}; lower --batch "
            "or give more images"
        )
    if device == "cpu":
        keep_freed_memory()
    run = _Run(graph, corpus, validation, preprocess, bits, recipe, work, device)
    run.resume()
    while not run.finished:
        run.epoch()
    return run.result()


class _Network(torch.nn.Module):
    """The trainable network and the three layers that are learned on its features."""

    def __init__(self, graph: onnx.ModelProto, dims: int, bits: int, classes: int) -> None:
        super().__init__()
        self.backbone = Trainable(graph)
        self.latent = torch.nn.Linear(dims, bits)
        self.of_code = torch.nn.Linear(bits, classes)
        self.of_feature = torch.nn.Linear(dims, classes)

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the class scores by code and by feature."""
        feature = self.feature(images)
        # The sigmoid's values from -1 to 1, so that an unsure bit says nothing.
        values = 2 * self.latent(feature).sigmoid() - 1
        return self.of_code(values), self.of_feature(feature)

    def feature(self, images: torch.Tensor) -> torch.Tensor:
        """Return the features, (N, D)."""
        feature: torch.Tensor
        (feature,) = self.backbone(images).values()
        return feature


def _is_fast_in_bfloat16(device: torch.device) -> bool:
    """Tell whether a device computes in bfloat16, and does not only imitate it."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    # Older versions of PyTorch do not tell.
    capabilities: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    return bool(capabilities.get("avx512_bf16"))


class _Run:
    """One run: what is learned, how far it is, and the best so far."""

    def __init__(
        self,
        graph: onnx.ModelProto,
        corpus: Corpus,
        validation: Corpus,
        preprocess: Preprocess,
        bits: int,
        recipe: FinetuneRecipe,
        work: Path,
        device: str,
    ) -> None:
        self._recipe, self._preprocess, self._device = recipe, preprocess, torch.device(device)
        self._corpus, self._validation = corpus, validation
        torch.manual_seed(recipe.seed)
        dims = graph.graph.output[0].type.tensor_type.shape.dim[1].dim_value
        network = _Network(graph, dims, bits, len(corpus.classes))
        # Channels last: twice as fast on a CPU, and what tensor cores want.
        self._network: Any = network.to(self._device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._steps = len(corpus.paths) // recipe.batch
        self._optimiser = torch.optim.AdamW(
            self._network.parameters(), lr=recipe.rate, weight_decay=recipe.weight_decay
        )
        # At a fifth of five steps OneCycleLR would divide by nothing.
        total = max(6, self._steps * recipe.epochs)
        self._schedule = torch.optim.lr_scheduler.OneCycleLR(
            self._optimiser, recipe.rate, total_steps=total, pct_start=0.2
        )
        self._epoch, self._step, self._loss_sum = 0, 0, 0.0
        self._history: list[dict[str, float]] = []
        self._best: dict[str, Any] = {}
        settings = {
            **asdict(recipe),
            "bits": bits,
            "images": len(corpus.paths),
            "classes": list(corpus.classes),
            "preprocess": preprocess.description,
        }
        self._checkpoint = Checkpoint(work, settings=settings, every_s=_CHECKPOINT_S)

    @property
    def finished(self) -> bool:
        best = max((each["accuracy"] for each in self._history), default=0.0)
        late = self._history[-self._recipe.patience :]
        stale = len(self._history) > self._recipe.patience and all(
            each["accuracy"] < best for each in late
        )
        return self._epoch >= self._recipe.epochs or stale

    def resume(self) -> None:
        """Take up the saved state, where there is one."""
        state = self._checkpoint.load()
        if state is None:
            return
        self._network.load_state_dict(state["network"])
        self._optimiser.load_state_dict(state["optimiser"])
        self._schedule.load_state_dict(state["schedule"])
        self._epoch, self._step, self._loss_sum = state["epoch"], state["step"], state["loss_sum"]
        self._history, self._best = state["history"], state["best"]

    def _save(self) -> None:
        self._checkpoint.save(
            {
                "network": self._network.state_dict(),
                "optimiser": self._optimiser.state_dict(),
                "schedule": self._schedule.state_dict(),
                "epoch": self._epoch,
                "step": self._step,
                "loss_sum": self._loss_sum,
                "history": self._history,
                "best": self._best,
            }
        )

    def epoch(self) -> None:
        """Train one epoch from the step on that was reached, then validate."""
        self._network.train()
        size = self._recipe.batch
        with progress(
            total=self._steps * size,
            begin=self._step * size,
            title=f"epoch {self._epoch + 1} of {self._recipe.epochs}",
        ) as bar:
            for images, labels in self._batches(self._corpus, self._epoch, first=self._step):
                self._learn(images, labels)
                bar.set_postfix(loss=f"{self._loss_sum / self._step:.3f}", refresh=False)
                bar.update(size)
                if self._checkpoint.due():
                    self._save()
        self._close_epoch()

    def _close_epoch(self) -> None:
        accuracy = self._accuracy()
        best = max((each["accuracy"] for each in self._history), default=-1.0)
        if accuracy > best:
            state = self._network.state_dict()
            self._best = {name: value.detach().clone() for name, value in state.items()}
        loss = self._loss_sum / self._step
        self._history.append({"epoch": self._epoch + 1, "loss": loss, "accuracy": accuracy})
        self._epoch, self._step, self._loss_sum = self._epoch + 1, 0, 0.0
        self._save()

    def _learn(self, images: torch.Tensor, labels: torch.Tensor) -> None:
        recipe = self._recipe
        # A resumed run draws the same, here and where there is dropout.
        torch.manual_seed(recipe.seed + 1 + self._epoch * self._steps + self._step)
        rng = np.random.default_rng([recipe.seed, self._epoch, self._step])
        targets = functional.one_hot(labels, len(self._corpus.classes)).float()
        if rng.random() < recipe.cutmix:
            images, targets = cut_and_mix(images, targets, rng)
        self._loss_sum += descend(
            self._optimiser,
            self._loss(images, targets),
            when=f"epoch {self._epoch + 1}, step {self._step + 1}",
            rate=recipe.rate,
        )
        self._schedule.step()
        self._step += 1

    def _loss(self, images: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        recipe = self._recipe
        with self._precision():
            by_code, by_feature = self._network(images)
            loss = functional.cross_entropy(by_code, targets, label_smoothing=recipe.smoothing)
            loss += recipe.feature_share * functional.cross_entropy(
                by_feature, targets, label_smoothing=recipe.smoothing
            )
        return loss

    def _precision(self) -> Any:
        fast = _is_fast_in_bfloat16(self._device)
        return torch.autocast(self._device.type, torch.bfloat16, enabled=fast)

    def _accuracy(self) -> float:
        """Share of the validation images whose class is read off the thresholded code."""
        self._network.eval()
        right = 0
        with torch.inference_mode(), self._precision():
            for images, labels in self._batches(self._validation, -1):
                feature = self._network.feature(images)
                bits = (self._network.latent(feature) > 0).to(feature.dtype)
                scores = self._network.of_code(2 * bits - 1)
                right += int((scores.argmax(1) == labels).sum())
        return right / len(self._validation.paths)

    def _batches(
        self, corpus: Corpus, epoch: int, *, first: int = 0
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Yield images (N, 3, H, W) float32 and labels (N,) on the device."""
        recipe = self._recipe
        examples = Examples(corpus, self._preprocess, recipe.augmentation, seed=recipe.seed)
        places = Batches(
            len(corpus.paths), recipe.batch, seed=recipe.seed, epoch=epoch, first=first
        )
        loader: Any = DataLoader(
            examples,
            batch_sampler=places,
            num_workers=min(_MOST_WORKERS, (os.cpu_count() or 2) - 1),
            pin_memory=self._device.type == "cuda",
        )
        for pixels, labels in loader:
            yield (
                normalised(pixels.to(self._device), self._preprocess),
                labels.to(self._device),
            )

    def result(self) -> Finetuned:
        """Return the network of the best epoch."""
        self._network.load_state_dict(self._best)
        layer = self._network.latent
        graph = with_latent(
            self._network.backbone.to_onnx(),
            layer.weight.detach().cpu().numpy(),
            layer.bias.detach().cpu().numpy(),
        )
        return Finetuned(graph, tuple(self._history))
