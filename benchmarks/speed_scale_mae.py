"""One training step of Scale-MAE: Swath against a plain implementation of the same model, side by side.

    python benchmarks/speed_scale_mae.py                       # both sizes, all variants, about ten minutes
    python benchmarks/speed_scale_mae.py --sizes small --rounds 5 --variants plain,swath

Every variant runs in processes of its own, which hold its own model and nothing else (so that peak memory is
its own), with the same weights (read from a file), images and masks; variants take turns, so that a
disturbance of the machine falls on all alike. It is checked that losses and gradients agree. Reported are
images per second and per CPU-second (medians), the ratio to `plain`, peak resident memory, and the share of
the machine's own best matrix product (model FLOPs of the plain forward pass, times three).

Variants: `plain` is written the way one would write it from the paper, with torch's modules. `swath` is the
library as `swath pretrain` runs it. `-malloc`: without `keep_freed_memory`; `+malloc`: with it. `-onednn`:
float32 products by torch's default library. `+bf16`: under bf16 autocast (other numerics, shown apart).
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from side_by_side import compare, run_steps

# Encoder width, depth and heads; decoder width, depth, heads and width of its pixel heads; images.
_FIELDS = ("dim", "depth", "heads", "d", "d_depth", "d_heads", "fcn", "side", "batch")
SIZES: dict[str, dict[str, int]] = {
    name: dict(zip(_FIELDS, numbers, strict=True))
    for name, numbers in {
        "vit_base": (768, 12, 12, 512, 3, 16, 512, 224, 4),  # the paper's decoder
        "small": (192, 6, 3, 128, 2, 4, 96, 128, 64),  # sized for a CPU
    }.items()
}
VARIANTS = ("plain", "plain+malloc", "swath", "swath-malloc", "swath-onednn", "swath+bf16")


def build_plain(size: dict[str, int]) -> Any:
    """Scale-MAE as a straightforward torch program: NCHW convolutions, all pixels, autograd throughout."""
    import torch
    import torch.nn.functional as F
    from torch import nn

    class Block(nn.Module):
        def __init__(self, dim: int, heads: int) -> None:
            super().__init__()
            self.heads = heads
            self.norm1, self.norm2 = nn.LayerNorm(dim, eps=1e-6), nn.LayerNorm(dim, eps=1e-6)
            self.attn = nn.ModuleDict({"qkv": nn.Linear(dim, 3 * dim), "proj": nn.Linear(dim, dim)})
            self.mlp = nn.ModuleDict({"fc1": nn.Linear(dim, 4 * dim), "fc2": nn.Linear(4 * dim, dim)})

        def forward(self, x: Any) -> Any:
            b, n, d = x.shape
            qkv = self.attn["qkv"](self.norm1(x)).reshape(b, n, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
            q, k, v = qkv.unbind(0)
            attention = ((q @ k.transpose(-2, -1)) * (d // self.heads) ** -0.5).softmax(dim=-1)
            x = x + self.attn["proj"]((attention @ v).transpose(1, 2).reshape(b, n, d))
            return x + self.mlp["fc2"](F.gelu(self.mlp["fc1"](self.norm2(x))))

    class ChannelNorm(nn.Module):
        def __init__(self, dim: int) -> None:
            super().__init__()
            self.ln = nn.LayerNorm(dim, eps=1e-6)

        def forward(self, x: Any) -> Any:
            return self.ln(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)

    class ConvBlock(nn.Module):
        def __init__(self, h: int) -> None:
            super().__init__()
            self.convs = nn.Sequential(
                nn.GELU(),
                nn.Conv2d(h, h // 2, 3, padding=1, groups=h // 2),
                nn.GELU(),
                nn.Conv2d(h // 2, h, 1),
            )
            self.residual = nn.Conv2d(h, h, 1)

        def forward(self, x: Any) -> Any:
            return self.convs(x) + self.residual(x)

    class Head(nn.Module):
        def __init__(self, d: int, h: int) -> None:
            super().__init__()
            self.proj = nn.Conv2d(d, h, 1)
            self.conv_blocks = nn.Sequential(ConvBlock(h), ConvBlock(h))
            self.pred = nn.Sequential(
                ChannelNorm(h),
                nn.ConvTranspose2d(h, h // 2, 4, 4),
                nn.GELU(),
                nn.Conv2d(h // 2, h // 4, 3, padding=1, groups=h // 4),
                nn.GELU(),
                nn.Conv2d(h // 4, h // 2, 1),
                nn.GELU(),
                nn.ConvTranspose2d(h // 2, 3, 2, 2),
            )

        def forward(self, x: Any) -> Any:
            return self.pred(self.conv_blocks(self.proj(x)))

    def positions(grid: int, dim: int, res: Any) -> Any:
        w = 1.0 / 10000 ** (torch.arange(dim // 4) / (dim / 4))
        row, column = torch.meshgrid(torch.arange(grid), torch.arange(grid), indexing="ij")
        x = (column.reshape(1, -1) * res[:, None]).unsqueeze(-1) * w
        y = (row.reshape(1, -1) * res[:, None]).unsqueeze(-1) * w
        table = torch.cat([x.sin(), x.cos(), y.sin(), y.cos()], dim=-1)
        return torch.cat([torch.zeros(len(res), 1, dim), table], dim=1)

    class Plain(nn.Module):
        def __init__(
            self, dim: int, depth: int, heads: int, d: int, d_depth: int, d_heads: int, fcn: int
        ) -> None:
            super().__init__()
            self.patch_embed = nn.ModuleDict({"proj": nn.Conv2d(3, dim, 16, 16)})
            self.cls_token = nn.Parameter(torch.randn(1, 1, dim) * 0.02)
            self.mask_token = nn.Parameter(torch.randn(1, 1, d) * 0.02)
            self.blocks = nn.ModuleList(Block(dim, heads) for _ in range(depth))
            self.norm = nn.LayerNorm(dim, eps=1e-6)
            self.decoder_embed = nn.Linear(dim, d)
            self.decoder_blocks = nn.ModuleList(Block(d, d_heads) for _ in range(d_depth))
            self.decoder_norm = nn.LayerNorm(d, eps=1e-6)
            self.fpn = nn.ModuleDict(
                {
                    "fpn1": nn.Sequential(
                        nn.ConvTranspose2d(d, d, 2, 2),
                        ChannelNorm(d),
                        nn.GELU(),
                        nn.ConvTranspose2d(d, d, 2, 2),
                    ),
                    "fpn2": nn.Sequential(nn.ConvTranspose2d(d, d, 2, 2)),
                }
            )
            self.fcn_high, self.fcn_low = Head(d, fcn), Head(d, fcn)

        def forward(self, views: dict[str, Any]) -> Any:
            image, target, gsd = views["image"], views["target"], views["gsd"]
            x = self.patch_embed["proj"](image).flatten(2).transpose(1, 2)
            b, n, d = x.shape
            g = int(n**0.5)
            table = positions(g, d, gsd)
            x = x + table[:, 1:]
            order = views["noise"].argsort(dim=1)
            restore = order.argsort(dim=1)
            keep = int(n * 0.25)
            x = x.gather(1, order[:, :keep].unsqueeze(-1).repeat(1, 1, d))
            mask = (restore >= keep).float()
            x = torch.cat([(self.cls_token + table[:, :1]).expand(b, -1, -1), x], dim=1)
            for block in self.blocks:
                x = block(x)
            x = self.decoder_embed(self.norm(x))[:, 1:]
            width = x.shape[-1]
            x = torch.cat([x, self.mask_token.repeat(b, n - keep, 1)], dim=1)
            x = x.gather(1, restore.unsqueeze(-1).repeat(1, 1, width)) + positions(g, width, gsd)[:, 1:]
            for block in self.decoder_blocks:
                x = block(x)
            x = self.decoder_norm(x).transpose(1, 2).reshape(b, width, g, g)
            high, low = self.fcn_high(self.fpn["fpn1"](x)), self.fcn_low(self.fpn["fpn2"](x))
            side = target.shape[-1]
            smooth = F.interpolate(
                F.interpolate(target, size=side // 64, mode="area"), size=side, mode="bilinear"
            )
            target_low, target_high = F.interpolate(target, size=side // 2, mode="area"), target - smooth
            mask = mask.view(b, 1, g, g)
            mask_low = F.interpolate(mask, size=side // 2)
            mask_high = F.interpolate(mask, size=side)
            loss_low = (mask_low * (target_low - low) ** 2).sum() / (mask_low.sum() + 1e-9)
            loss_high = (mask_high * (target_high - high) ** 2).sum() / (mask_high.sum() + 1e-9)
            return loss_low + loss_high

    return Plain(*(size[key] for key in _FIELDS[:7]))


def build_swath(size: dict[str, int]) -> Any:
    """The same model as the library has it."""
    from swath.encoders.vit import ViT
    from swath.objectives.scale_mae import ScaleMAE, ScaleMAEConfig

    encoder = ViT(3, patch_size=16, embed_dim=size["dim"], depth=size["depth"], heads=size["heads"])
    config = ScaleMAEConfig(
        source_size=size["side"],
        decoder_dim=size["d"],
        decoder_depth=size["d_depth"],
        decoder_heads=size["d_heads"],
        fcn_dim=size["fcn"],
    )
    return ScaleMAE(encoder, config)


def write_weights(folder: str, size_name: str) -> None:
    """One random initialization under both models' names: ``SIZE_plain`` and ``SIZE_swath.safetensors``."""
    import torch
    from safetensors.torch import save_file

    from swath.models.importers.scale_mae import scale_mae_layout

    torch.manual_seed(0)
    plain = build_plain(SIZES[size_name]).state_dict()
    layout = scale_mae_layout(plain)
    ours = {name: to(plain[theirs]).contiguous().clone() for theirs, (name, to) in layout.items()}
    save_file(
        {name: value.contiguous() for name, value in plain.items()}, weights_of(folder, size_name, "plain")
    )
    save_file(ours, weights_of(folder, size_name, "swath"))


def weights_of(folder: str, size_name: str, kind: str) -> str:
    """Path of the weights of a size under the names of one kind of model."""
    return str(Path(folder) / f"{size_name}_{kind}.safetensors")


def worker(variant: str, size_name: str, threads: int, folder: str) -> None:
    """Run a few steps and report them as JSON on standard output."""
    os.environ["SWATH_CPU_MATMUL"] = "torch" if "-onednn" in variant else "auto"
    import torch
    from safetensors.torch import load_file

    from swath.cpu.allocator import retain_freed_memory

    torch.set_num_threads(threads)
    if variant.startswith("plain") == ("+malloc" in variant) and "-malloc" not in variant:
        retain_freed_memory()
    size = SIZES[size_name]
    kind = "plain" if variant.startswith("plain") else "swath"
    with torch.device("meta"):  # no initialization that memory and time would be spent on
        model = build_plain(size) if kind == "plain" else build_swath(size)
    model.load_state_dict(load_file(weights_of(folder, size_name, kind)), assign=True)
    assert not any(t.is_meta for t in (*model.parameters(), *model.buffers()))
    torch.manual_seed(0)
    side, batch = size["side"], size["batch"]
    views = {
        "image": torch.randn(batch, 3, side, side),
        "target": torch.randn(batch, 3, 2 * side, 2 * side),
        "gsd": torch.rand(batch) * 3 + 1,
        "noise": torch.rand(batch, (side // 16) ** 2),
    }
    flops = 0.0
    if variant == "plain":
        from torch.utils.flop_counter import FlopCounterMode

        one = {key: value[:1] for key, value in views.items()}
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            model(one)
        flops = 3.0 * counter.get_total_flops()

    def loss() -> Any:
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled="+bf16" in variant):
            value = model(views)
        return value["total"] if isinstance(value, dict) else value

    run_steps(model, loss, flops)


def matmul_peak(threads: int) -> dict[str, float]:
    """GFLOP/s per CPU-second and per second of the best float32 product, over both of torch's libraries."""
    code = (
        "import time, torch\n"
        "from swath.cpu.linear import linear\n"
        f"torch.set_num_threads({threads})\n"
        "a, b = torch.randn(4096, 4096), torch.randn(4096, 4096)\n"
        "best = [1e9, 1e9]\n"
        "for _ in range(7):\n"
        "    w, c = time.perf_counter(), time.process_time()\n"
        "    linear(a, b)\n"
        "    best = [min(best[0], time.perf_counter() - w), min(best[1], time.process_time() - c)]\n"
        "print(2 * 4096**3 / best[0] / 1e9, 2 * 4096**3 / best[1] / 1e9)\n"
    )
    found = {}
    for library in ("torch", "onednn"):
        environment = {**os.environ, "SWATH_CPU_MATMUL": library}
        out = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
        if out.returncode == 0:
            per_second, per_cpu = map(float, out.stdout.split())
            found[library] = per_second
            found[library + "_per_cpu_second"] = per_cpu
    return found


def measure(
    size: str, variants: list[str], rounds: int, threads: int, peak: dict[str, float], folder: str
) -> dict[str, Any]:
    """All rounds of all variants of a size; prints the table, and the share of the machine's best."""
    prepare = [sys.executable, __file__, "--prepare", "--sizes", size, "--weights", folder]
    subprocess.run(prepare, check=True)

    def command(variant: str) -> list[str]:
        return [
            __file__,
            "--worker",
            variant,
            "--sizes",
            size,
            "--threads",
            str(threads),
            "--weights",
            folder,
        ]

    side, batch = SIZES[size]["side"], SIZES[size]["batch"]
    rows = compare(
        f"{size}, {side} -> {2 * side} px, {threads} threads, images",
        variants,
        command,
        batch=batch,
        rounds=rounds,
        same=lambda variant: "+bf16" not in variant,
    )
    flops = max(row["flops"] for row in rows.values())
    best = max((v for k, v in peak.items() if k.endswith("_per_cpu_second")), default=float("nan"))
    for row in rows.values():
        row["mfu"] = row["per_cpu_second"] * flops / 1e9 / best
    shares = ", ".join(f"{variant} {row['mfu']:.0%}" for variant, row in rows.items())
    print(
        f"{flops / 1e9:.2f} GFLOP an image; of the best matrix product per CPU-second: {shares}", flush=True
    )
    return {"gflop_per_image": flops / 1e9, "rows": rows}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", default=",".join(SIZES))
    parser.add_argument("--variants", default=",".join(VARIANTS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--out", help="write the figures as JSON here")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    parser.add_argument("--prepare", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--weights", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        worker(options.worker, options.sizes, options.threads, options.weights)
        return
    if options.prepare:
        write_weights(options.weights, options.sizes)
        return
    peak = matmul_peak(options.threads)
    print("matrix product 4096^3, GFLOP/s:", {key: round(value, 1) for key, value in peak.items()})
    results: dict[str, Any] = {"matmul_gflops": peak, "threads": options.threads}
    with tempfile.TemporaryDirectory() as folder:
        for size in options.sizes.split(","):
            variants = options.variants.split(",")
            results[size] = measure(size, variants, options.rounds, options.threads, peak, folder)
    if options.out:
        from swath.files import write_json

        write_json(options.out, results)


if __name__ == "__main__":
    main()
