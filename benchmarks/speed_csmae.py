"""One training step of CSMAE: Swath against a plain implementation of the same model, side by side.

    python benchmarks/speed_csmae.py                      # CECD and SESD, ViT-B, 120 px, 64 pairs
    python benchmarks/speed_csmae.py --models cecd --batch 16 --rounds 1

`plain` is written the way one would write it from the paper, with torch's modules: each sensor through the
encoder on its own, each of the four reconstructions through a decoder of its own pass, pixels predicted for
all patches and then masked. `swath` is the library as `swath pretrain` runs it; `swath-onednn` without its
choice of matrix library, so what the structure alone gives. See `side_by_side.py` for how it is measured.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path
from typing import Any

from side_by_side import compare, run_steps

# blocks of a sensor's own, common blocks, decoder
MODELS = {"sesd": (10, 2, "specific"), "secd": (10, 2, "common"), "cesd": (0, 12, "specific"),
          "cecd": (0, 12, "common")}  # fmt: skip
VARIANTS = ("plain", "swath", "swath-onednn")
S1, S2 = "sentinel1_ben", "sentinel2_ben"
BANDS = {S1: 2, S2: 10}


def build_plain(specific: int, common: int, decoder: str) -> Any:
    """CSMAE as a straightforward torch program, under the names of the released checkpoints."""
    import torch
    import torch.nn.functional as F
    from torch import nn

    from swath.encoders.positions import gsd_positions

    class Attention(nn.Module):
        def __init__(self, dim: int, heads: int) -> None:
            super().__init__()
            self.heads = heads
            self.qkv, self.proj = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)

        def forward(self, x: Any) -> Any:
            b, n, d = x.shape
            q, k, v = self.qkv(x).reshape(b, n, 3, self.heads, d // self.heads).permute(2, 0, 3, 1, 4)
            x = F.scaled_dot_product_attention(q, k, v)
            return self.proj(x.transpose(1, 2).reshape(b, n, d))

    class Mlp(nn.Module):
        def __init__(self, dim: int) -> None:
            super().__init__()
            self.fc1, self.fc2 = nn.Linear(dim, 4 * dim), nn.Linear(4 * dim, dim)

        def forward(self, x: Any) -> Any:
            return self.fc2(F.gelu(self.fc1(x)))

    class Block(nn.Module):
        def __init__(self, dim: int, heads: int, eps: float) -> None:
            super().__init__()
            self.norm1, self.norm2 = nn.LayerNorm(dim, eps=eps), nn.LayerNorm(dim, eps=eps)
            self.attn, self.mlp = Attention(dim, heads), Mlp(dim)

        def forward(self, x: Any) -> Any:
            x = x + self.attn(self.norm1(x))
            return x + self.mlp(self.norm2(x))

    class PatchEmbed(nn.Module):
        def __init__(self, bands: int) -> None:
            super().__init__()
            self.proj = nn.Conv2d(bands, 768, 15, stride=15)

        def forward(self, x: Any) -> Any:
            return self.proj(x).flatten(2).transpose(1, 2)

    class Backbone(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cls_token = nn.Parameter(torch.zeros(1, 1, 768))
            self.cls_token_s2 = nn.Parameter(torch.zeros(1, 1, 768))
            self.patch_embed, self.patch_embed_s2 = PatchEmbed(2), PatchEmbed(10)

            def blocks(count: int) -> nn.ModuleList:
                return nn.ModuleList(Block(768, 12, 1e-6) for _ in range(count))

            if specific:
                self.blocks_s1, self.blocks_s2 = blocks(specific), blocks(specific)
                self.norm_s1, self.norm_s2 = nn.LayerNorm(768, eps=1e-6), nn.LayerNorm(768, eps=1e-6)
            self.blocks = blocks(common)
            self.norm, self.fc_norm = nn.LayerNorm(768, eps=1e-6), nn.LayerNorm(768, eps=1e-6)

        def forward(self, image: Any, sensor: str, shuffle: Any, keep: int, position: Any) -> Any:
            first = sensor == "s1"
            x = (self.patch_embed if first else self.patch_embed_s2)(image) + position
            x = x.gather(1, shuffle[:, :keep, None].expand(-1, -1, x.shape[-1]))
            cls = (self.cls_token if first else self.cls_token_s2).expand(len(x), -1, -1)
            x = torch.cat([cls, x], 1)
            if specific:
                for block in self.blocks_s1 if first else self.blocks_s2:
                    x = block(x)
                x = (self.norm_s1 if first else self.norm_s2)(x)
            for block in self.blocks:
                x = block(x)
            return self.norm(x)

    class Decoder(nn.Module):
        def __init__(self, heads: dict[str, int]) -> None:
            super().__init__()
            self.mask_token = nn.Parameter(torch.zeros(1, 1, 512))
            self.decoder_embed = nn.Linear(768, 512)
            self.decoder_blocks = nn.ModuleList(Block(512, 16, 1e-5) for _ in range(8))
            self.decoder_norm = nn.LayerNorm(512, eps=1e-5)
            for name, count in heads.items():
                self.add_module(name, nn.Linear(512, count))

        def forward(self, x: Any, restore: Any, position: Any, head: str) -> Any:
            x = self.decoder_embed(x)
            rest = self.mask_token.expand(len(x), restore.shape[1] + 1 - x.shape[1], -1)
            y = torch.cat([x[:, 1:], rest], 1)
            y = y.gather(1, restore[..., None].expand(-1, -1, y.shape[-1])) + position
            x = torch.cat([x[:, :1], y], 1)
            for block in self.decoder_blocks:
                x = block(x)
            return getattr(self, head)(self.decoder_norm(x))[:, 1:]

    class Plain(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.backbone = Backbone()
            if decoder == "common":
                self.decoder = Decoder({"decoder_pred_s1_to_s2": 2250, "decoder_pred_s2_to_s1": 450})
            else:
                self.decoder_s2_to_s1 = Decoder({"decoder_pred": 450})
                self.decoder_s1_to_s2 = Decoder({"decoder_pred": 2250})

        def forward(self, views: Any) -> Any:
            tables = [
                gsd_positions(8, 8, dim, torch.ones(1), cls=False).to(views["noise"][S1])
                for dim in (768, 512)
            ]
            images = {"s1": views["image"][S1], "s2": views["image"][S2]}
            tokens, restore, mask, target = {}, {}, {}, {}
            for name, image in images.items():
                noise = views["noise"][S1 if name == "s1" else S2]
                shuffle = noise.argsort(1)
                restore[name] = shuffle.argsort(1)
                mask[name] = (restore[name] >= 32).float()
                tokens[name] = self.backbone(image, name, shuffle, 32, tables[0])
                b, c, _, _ = image.shape
                target[name] = image.reshape(b, c, 8, 15, 8, 15).permute(0, 2, 4, 3, 5, 1).reshape(b, 64, -1)
            total = 0.0
            for to in images:
                for source in images:
                    way = "s2_to_s1" if to == "s1" else "s1_to_s2"
                    if decoder == "common":
                        module, head = self.decoder, f"decoder_pred_{way}"
                    else:
                        module, head = getattr(self, f"decoder_{way}"), "decoder_pred"
                    made = module(tokens[source], restore[source], tables[1], head)
                    error = (made - target[to]).square().mean(-1)
                    total = total + (error * mask[source]).sum() / mask[source].sum()
            pooled = [self.backbone.fc_norm(x[:, 1:].mean(1)) for x in tokens.values()]
            z = F.normalize(torch.cat(pooled), dim=1)
            n = len(pooled[0])
            similarity = (z @ z.T / 0.5).masked_fill(torch.eye(2 * n, dtype=torch.bool), float("-inf"))
            partner = torch.arange(2 * n).roll(n)
            return total + F.cross_entropy(similarity, partner)

    return Plain()


def build_swath(specific: int, common: int, decoder: str) -> Any:
    """The same model as the library has it."""
    from swath.encoders.multi_sensor import MultiSensorViT
    from swath.objectives.csmae import CSMAE
    from swath.objectives.csmae_config import CSMAEConfig

    encoder = MultiSensorViT(BANDS, specific_depth=specific, common_depth=common)
    return CSMAE(encoder, CSMAEConfig(decoder=decoder))  # type: ignore[arg-type]


def write_weights(folder: str, name: str) -> None:
    """One random initialization under both models' names."""
    import torch
    from safetensors.torch import save_file

    from swath.models.importers.csmae import csmae_layout

    torch.manual_seed(0)
    ours = build_swath(*MODELS[name]).state_dict()
    with torch.device("meta"):
        keys = build_plain(*MODELS[name]).state_dict()
    layout = csmae_layout(keys, S1, S2)
    save_file({k: v.contiguous() for k, v in ours.items()}, f"{folder}/{name}_swath.safetensors")
    save_file({k: ours[layout[k]].contiguous() for k in keys}, f"{folder}/{name}_plain.safetensors")


def worker(variant: str, name: str, batch: int, threads: int, folder: str) -> None:
    """A few steps of one variant."""
    os.environ["SWATH_CPU_MATMUL"] = "torch" if "-onednn" in variant else "auto"
    import torch
    from safetensors.torch import load_file

    torch.set_num_threads(threads)
    kind = variant.split("-")[0]
    if kind == "swath":
        from swath.cpu.allocator import retain_freed_memory

        retain_freed_memory()
    with torch.device("meta"):
        model = build_plain(*MODELS[name]) if kind == "plain" else build_swath(*MODELS[name])
    model.load_state_dict(load_file(f"{folder}/{name}_{kind}.safetensors"), assign=True)
    model.requires_grad_(True)
    torch.manual_seed(0)
    views = {
        "image": {sensor: torch.randn(batch, bands, 120, 120) for sensor, bands in BANDS.items()},
        "gsd": {sensor: torch.ones(batch) for sensor in BANDS},
        "valid": {},
        "noise": {sensor: torch.rand(batch, 64) for sensor in BANDS},
    }

    def loss() -> Any:
        value = model(views)
        return value["total"] if isinstance(value, dict) else value

    run_steps(model, loss)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", default="cecd,sesd")
    parser.add_argument("--variants", default=",".join(VARIANTS))
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--out", help="write the figures as JSON here")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    parser.add_argument("--weights", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        worker(options.worker, options.models, options.batch, options.threads, options.weights)
        return
    results: dict[str, Any] = {"threads": options.threads}
    with tempfile.TemporaryDirectory() as folder:
        for name in options.models.split(","):
            write_weights(folder, name)

            def command(variant: str, name: str = name, folder: str = folder) -> list[str]:
                return [
                    str(Path(__file__)), "--worker", variant, "--models", name, "--batch", str(options.batch),
                    "--threads", str(options.threads), "--weights", folder,
                ]  # fmt: skip

            title = f"{name.upper()}, ViT-B, 120 px, {options.threads} threads, pairs"
            results[name] = compare(
                title, options.variants.split(","), command, batch=options.batch, rounds=options.rounds
            )
            Path(folder, f"{name}_plain.safetensors").unlink()
            Path(folder, f"{name}_swath.safetensors").unlink()
    if options.out:
        from swath.files import write_json

        write_json(options.out, results)


if __name__ == "__main__":
    main()
