"""Which published architectures a forecast takes as they come: in training mode, without weights.

    python benchmarks/networks/zoo.py [--library torchvision|timm|transformers] [--at-most 60]
                                      [--cache DIR] [--save]

Every network is built at random weights and a small input size and forecast on two tiny tasks of
random data. It counts as taken where all figures are finite, and as refused where a ValueError says
why; anything else is a crash. Each result is kept in the cache as soon as it is there, so that the
script goes on where it was stopped. Networks of more parameters than `--at-most` (millions) are
counted as left out.
"""

from __future__ import annotations

import argparse
import json
import math
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

import capacity

RESULTS = Path(__file__).parent / "results" / "zoo.txt"
SAMPLES, CLASSES, SIZE, WORDS, LENGTH = 16, 4, 64, 99, 12
PLAN = capacity.Training(lr=1e-3, epochs=2, batch_size=4)
SMALL_TEXT = {
    "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64,
    "vocab_size": WORDS, "max_position_embeddings": 64, "num_labels": CLASSES, "pad_token_id": 0,
}  # fmt: skip
TEXT = (
    "albert", "bart", "bert", "bloom", "convbert", "deberta", "deberta-v2", "distilbert",
    "electra", "ernie", "funnel", "gemma", "gpt2", "gpt_neox", "llama", "mistral", "mobilebert",
    "modernbert", "mpnet", "opt", "phi", "qwen2", "rembert", "roberta", "roformer", "t5",
    "xlm-roberta", "xlnet",
)  # fmt: skip
OWN_NAMES = {
    "distilbert": {"dim": 32, "n_layers": 2, "n_heads": 2, "hidden_dim": 64},
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 64},
    "bloom": {"n_layer": 2, "n_head": 2},
    "t5": {"d_model": 32, "d_ff": 64, "num_layers": 2, "num_heads": 2, "d_kv": 16,
           "decoder_start_token_id": 0},
    "bart": {"d_model": 32, "encoder_layers": 2, "decoder_layers": 2, "encoder_ffn_dim": 64,
             "decoder_ffn_dim": 64, "encoder_attention_heads": 2, "decoder_attention_heads": 2},
    "opt": {"ffn_dim": 64, "word_embed_proj_dim": 32},
    "xlnet": {"d_model": 32, "n_layer": 2, "n_head": 2, "d_inner": 64},
    "funnel": {"d_model": 32, "n_head": 2, "d_head": 16, "d_inner": 64, "block_sizes": [1, 1]},
    "albert": {"embedding_size": 32},
    "mobilebert": {"embedding_size": 32, "true_hidden_size": 32, "intra_bottleneck_size": 32},
    "gemma": {"head_dim": 16, "num_key_value_heads": 1},
    "mistral": {"num_key_value_heads": 1},
    "qwen2": {"num_key_value_heads": 2},
}  # fmt: skip

WITHOUT = {"funnel": ("num_hidden_layers",), "xlnet": ("max_position_embeddings",)}

Build = Callable[[], tuple[nn.Module, Any]]


def images(size: int = SIZE) -> torch.Tensor:
    return torch.randn(SAMPLES, 3, size, size, generator=torch.Generator().manual_seed(0))


def torchvision_networks() -> Iterator[tuple[str, Build]]:
    from torchvision import models

    for name in sorted(models.list_models(module=models)):
        size = 224 if name.startswith("vit") else 160 if name.startswith("inception") else SIZE
        more = {"init_weights": False} if name in {"googlenet", "inception_v3"} else {}

        def build(name: str = name, size: int = size, more: Any = more) -> Any:
            return models.get_model(name, weights=None, num_classes=CLASSES, **more), images(size)

        yield name, build


def timm_networks() -> Iterator[tuple[str, Build]]:
    import timm

    names = timm.list_models()
    for name in names[:: max(1, len(names) // 150)][:150]:

        def build(name: str = name) -> Any:
            size = timm.get_pretrained_cfg(name)
            side = int(size.input_size[-1]) if size is not None else 224
            for more, pixels in (({"img_size": SIZE}, SIZE), ({}, 96), ({}, side)):
                try:
                    model = timm.create_model(name, num_classes=CLASSES, **more)
                    with torch.no_grad():  # the smallest size that the network itself takes
                        model.eval()(images(pixels)[:1])
                except Exception:
                    continue
                return model, images(pixels)
            raise ValueError(f"no size of {SIZE}, 96 and {side} is taken")

        yield name, build


def transformers_networks() -> Iterator[tuple[str, Build]]:
    from transformers import AutoConfig, AutoModelForSequenceClassification

    for name in TEXT:

        def build(name: str = name) -> Any:
            fields = SMALL_TEXT | OWN_NAMES.get(name, {})
            for field in WITHOUT.get(name, ()):
                del fields[field]
            config = AutoConfig.for_model(name, **fields)
            source = torch.Generator().manual_seed(0)
            ids = torch.randint(1, WORDS, (SAMPLES, LENGTH), generator=source)
            mask = (torch.arange(LENGTH) < torch.randint(4, LENGTH + 1, (SAMPLES, 1))).long()
            ids[:, 0] = 1
            if name in {"bart", "t5"}:  # their classifiers read at the end-of-sequence token
                ids = torch.where(ids == config.eos_token_id, 5, ids)
                ids[:, -1], mask = config.eos_token_id, torch.ones_like(mask)
            batch = {"input_ids": ids * mask, "attention_mask": mask}
            return AutoModelForSequenceClassification.from_config(config), batch

        yield name, build


LIBRARIES = {
    "torchvision": torchvision_networks,
    "timm": timm_networks,
    "transformers": transformers_networks,
}


def tried(build: Build, at_most: float) -> dict[str, Any]:
    """Forecast one network."""
    torch.manual_seed(0)
    begin = time.process_time()
    try:
        model, x = build()
    except Exception as error:  # of the library's own: not this project's
        return {"result": "not built", "why": _line(error)}
    model.train()
    parameters = sum(p.numel() for p in model.parameters())
    if parameters > at_most * 1e6:
        return {"result": "left out", "why": f"{parameters / 1e6:.0f} M parameters"}
    y = torch.arange(SAMPLES) % CLASSES
    try:
        made = capacity.forecast(model, old=(x, y), new=(x, (y + 1) % CLASSES), training=PLAN)
    except ValueError as error:
        return {"result": "refused", "why": _line(error)}
    except Exception as error:
        return {"result": "crash", "why": f"{type(error).__name__}: {_line(error)}"}
    value = made.old[0].loss_increase.value
    fine = value is not None and math.isfinite(value)
    seconds = round(time.process_time() - begin, 1)
    return {"result": "taken" if fine else "no figure", "why": "", "seconds": seconds}


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:160]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--library", choices=LIBRARIES, action="append")
    parser.add_argument("--at-most", type=float, default=60.0)
    parser.add_argument("--cache", type=Path, default=Path("zoo-cache"))
    parser.add_argument("--save", action="store_true")
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    options.cache.mkdir(parents=True, exist_ok=True)
    lines = ["Forecasts of networks as they come, in training mode, at random weights", ""]
    for library in options.library or LIBRARIES:
        kept = options.cache / f"{library}.jsonl"
        known = (
            [json.loads(line) for line in kept.read_text().splitlines()] if kept.exists() else []
        )
        done = {row["name"]: row for row in known}
        rows = []
        for name, build in LIBRARIES[library]():
            if name not in done:
                done[name] = {"name": name, **tried(build, options.at_most)}
                with kept.open("a") as file:
                    file.write(json.dumps(done[name]) + "\n")
                print(f"{library} {name}: {done[name]['result']} {done[name]['why']}", flush=True)
            rows.append(done[name])
        counts = Counter(row["result"] for row in rows)
        tried_on = len(rows) - counts["left out"] - counts["not built"]
        share = counts["taken"] / max(1, tried_on)
        lines.append(
            f"{library}: {counts['taken']} of {tried_on} taken ({share:.0%}), "
            + ", ".join(f"{n} {what}" for what, n in sorted(counts.items()) if what != "taken")
        )
        lines += [
            f"    {row['name']}: {row['result']}: {row['why']}"
            for row in rows
            if row["result"] not in {"taken", "left out"}
        ]
    text = "\n".join(lines)
    print(text)
    if options.save:
        RESULTS.parent.mkdir(exist_ok=True)
        RESULTS.write_text(text + "\n")


if __name__ == "__main__":
    main()
