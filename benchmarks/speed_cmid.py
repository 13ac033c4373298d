"""One training step of CMID: Swath against a plain implementation of the same model, side by side.

    python benchmarks/speed_cmid.py                       # Swin-B and ResNet-50, 224 px, 4 pairs, 65,536 keys
    python benchmarks/speed_cmid.py --models swin_nano --threads 1

A step is everything between two batches: both encoders on both views, the three losses, the backward pass,
the new keys in the queue, Adan, and the teacher's move. `plain` is written the way one would write it from
the paper, with torch's modules and timm's ResNet, under the names of the released checkpoints: student and
teacher each take one view after the other, attention materializes its scores and builds its mask and its bias
in every block, the queue is copied before new keys enter, Adan and the teacher's average go tensor by tensor,
and each loss is read out. `swath` is the library as `swath pretrain` runs it; `swath-onednn` without its
choice of matrix library, so what the structure alone gives; `swath-malloc` without `keep_freed_memory`, and
`plain+malloc` with it. Views come filled and masked to all. See `side_by_side.py` for how it is measured.
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

VARIANTS = ("plain", "plain+malloc", "swath", "swath-malloc", "swath-onednn")
BIG = {"view_size": 224, "mask_block": 32}  # and otherwise the paper's options
# As configs/cmid_small_cpu.yaml, with the two kinds of backbone that the method has.
SMALL = {"mask_block": 16, "hidden_dim": 256, "out_dim": 64, "queue_size": 4096, "prototypes": 256,
         "bottleneck_dim": 64, "matches": 9}  # fmt: skip
# name: (our encoder, options of the objective, pairs of a step)
MODELS: dict[str, tuple[str, dict[str, int], int]] = {
    "swin_base": ("swin_base_patch4_window7", BIG, 4),
    "resnet50": ("resnet50", BIG, 4),
    "swin_nano": ("swin_nano", {**SMALL, "view_size": 128}, 64),  # 96 would not fall into its windows
    "resnet_nano": ("resnet_nano", {**SMALL, "view_size": 96}, 64),
}
RATE, DECAY, TOTAL = 1e-4, 0.02, 1000  # of Adan; steps of the imagined run


def build_swath(name: str) -> Any:
    """The model as the library has it."""
    from swath.encoders.protocol import create_model
    from swath.objectives.cmid import CMID
    from swath.objectives.cmid_config import CMIDConfig

    encoder, options, _ = MODELS[name]
    return CMID(create_model(encoder, bands=3), CMIDConfig(**options))  # type: ignore[arg-type]


def build_plain(name: str) -> Any:
    """CMID as a straightforward torch program, under the names of the released checkpoints."""
    import copy

    import torch
    import torch.nn.functional as F
    from torch import nn

    from swath.encoders.protocol import create_model
    from swath.objectives.cmid_config import CMIDConfig

    encoder, options, _ = MODELS[name]
    config = CMIDConfig(**options)  # type: ignore[arg-type]
    with torch.device("meta"):
        measures = create_model(encoder, bands=3)

    class Attention(nn.Module):
        def __init__(self, dim: int, heads: int, window: int) -> None:
            super().__init__()
            self.heads, self.window = heads, window
            self.relative_position_bias_table = nn.Parameter(torch.zeros((2 * window - 1) ** 2, heads))
            row, column = torch.arange(window).repeat_interleave(window), torch.arange(window).repeat(window)
            index = (
                (row[:, None] - row + window - 1) * (2 * window - 1) + column[:, None] - column + window - 1
            )
            self.register_buffer("index", index, persistent=False)
            self.qkv, self.proj = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)

        def forward(self, x: Any, mask: Any) -> Any:
            b, n, c = x.shape
            q, k, v = self.qkv(x).reshape(b, n, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
            scores = (q * (c // self.heads) ** -0.5) @ k.transpose(-2, -1)
            bias = self.relative_position_bias_table[self.index.view(-1)].view(n, n, -1)
            scores = scores + bias.permute(2, 0, 1).contiguous().unsqueeze(0)
            if mask is not None:
                scores = scores.view(-1, len(mask), self.heads, n, n) + mask.unsqueeze(1).unsqueeze(0)
                scores = scores.view(b, self.heads, n, n)
            x = (scores.softmax(dim=-1) @ v).transpose(1, 2).reshape(b, n, c)
            return self.proj(x)

    class Block(nn.Module):
        def __init__(self, dim: int, heads: int, window: int, shifted: bool) -> None:
            super().__init__()
            self.window, self.shifted = window, shifted
            self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
            self.attn = nn.ModuleDict({"w_msa": Attention(dim, heads, window)})
            self.ffn = nn.ModuleDict(
                {
                    "layers": nn.Sequential(
                        nn.Sequential(nn.Linear(dim, 4 * dim), nn.GELU()), nn.Linear(4 * dim, dim)
                    )
                }
            )

        def windows(self, x: Any) -> Any:
            b, h, w, c = x.shape
            x = x.view(b, h // self.window, self.window, w // self.window, self.window, c)
            return x.permute(0, 1, 3, 2, 4, 5).reshape(-1, self.window**2, c)

        def forward(self, x: Any, height: int, width: int) -> Any:
            b, _, c = x.shape
            window, shift = self.window, self.window // 2 if self.shifted else 0
            if min(height, width) <= window:
                shift = 0
            y = self.norm1(x).view(b, height, width, c)
            down, right = -height % window, -width % window
            y = F.pad(y, (0, 0, 0, right, 0, down))
            mask = None
            if shift:
                y = torch.roll(y, (-shift, -shift), (1, 2))
                region, count = torch.zeros(1, height + down, width + right, 1), 0
                cuts = (slice(0, -window), slice(-window, -shift), slice(-shift, None))
                for vertical in cuts:
                    for horizontal in cuts:
                        region[:, vertical, horizontal] = count
                        count += 1
                region = self.windows(region).squeeze(-1)
                mask = region.unsqueeze(1) - region.unsqueeze(2)
                mask = mask.masked_fill(mask != 0, -100.0).masked_fill(mask == 0, 0.0)
            y = self.attn["w_msa"](self.windows(y), mask)
            y = y.view(b, (height + down) // window, (width + right) // window, window, window, c)
            y = y.permute(0, 1, 3, 2, 4, 5).reshape(b, height + down, width + right, c)
            if shift:
                y = torch.roll(y, (shift, shift), (1, 2))
            x = x + y[:, :height, :width].reshape(b, height * width, c)
            return x + self.ffn["layers"](self.norm2(x))

    class Merging(nn.Module):
        def __init__(self, dim: int) -> None:
            super().__init__()
            self.norm, self.reduction = nn.LayerNorm(4 * dim), nn.Linear(4 * dim, 2 * dim, bias=False)

        def forward(self, x: Any, height: int, width: int) -> Any:
            x = F.unfold(x.transpose(1, 2).view(len(x), -1, height, width), 2, stride=2)
            return self.reduction(self.norm(x.transpose(1, 2)))

    class Swin(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            dims, window = measures.channels, measures.layers[0].blocks[0].window
            self.patch_embed = nn.ModuleDict(
                {"projection": nn.Conv2d(3, dims[0], 4, 4), "norm": nn.LayerNorm(dims[0])}
            )
            self.stages = nn.ModuleList()
            for number, (dim, stage) in enumerate(zip(dims, measures.layers, strict=True)):
                blocks = [
                    Block(dim, block.attn.heads, window, index % 2 == 1)
                    for index, block in enumerate(stage.blocks)
                ]
                parts: dict[str, Any] = {"blocks": nn.ModuleList(blocks)}
                if number < len(dims) - 1:
                    parts["downsample"] = Merging(dim)
                self.stages.append(nn.ModuleDict(parts))
            self.norm3 = nn.LayerNorm(dims[-1])

        def forward(self, image: Any, token: Any = None, mask: Any = None) -> Any:
            x = self.patch_embed["projection"](image)
            height, width = x.shape[2:]
            x = self.patch_embed["norm"](x.flatten(2).transpose(1, 2))
            if mask is not None:
                x = x + token * mask.flatten(1).unsqueeze(-1)
            for stage in self.stages:
                for block in stage["blocks"]:
                    x = block(x, height, width)
                if "downsample" in stage:
                    x = stage["downsample"](x, height, width)
                    height, width = height // 2, width // 2
            return self.norm3(x).transpose(1, 2).reshape(len(x), -1, height, width)

    def resnet() -> Any:
        import timm

        options = {"num_classes": 0, "global_pool": ""}
        if encoder == "resnet_nano":
            return timm.create_model("resnet18", channels=(32, 64, 128, 256), **options)
        return timm.create_model(encoder, **options)

    def look(network: Any, image: Any, token: Any = None, mask: Any = None) -> Any:
        if isinstance(network, Swin):
            return network(image, token, mask)
        x = network.maxpool(network.act1(network.bn1(network.conv1(image))))
        if mask is not None:
            x = x + token * mask.unsqueeze(1)
        return network.layer4(network.layer3(network.layer2(network.layer1(x))))

    def projector(width: int) -> Any:
        layers = nn.Sequential(
            nn.Linear(width, config.hidden_dim), nn.Identity(), nn.ReLU(),
            nn.Linear(config.hidden_dim, config.out_dim),
        )  # fmt: skip
        return nn.ModuleDict({"layer": nn.Sequential(layers)})

    class LocalHead(nn.Module):
        def __init__(self, width: int, batch_norm: bool) -> None:
            super().__init__()
            layers: list[Any] = []
            for inputs in (width, config.hidden_dim):
                layers += [nn.Conv1d(inputs, config.hidden_dim, 1)]
                layers += [nn.BatchNorm1d(config.hidden_dim)] if batch_norm else []
                layers += [nn.GELU()]
            self.mlp = nn.Sequential(*layers, nn.Conv1d(config.hidden_dim, config.bottleneck_dim, 1))
            self.last_layer = nn.Module()
            self.last_layer.weight_v = nn.Parameter(torch.randn(config.prototypes, config.bottleneck_dim, 1))

        def forward(self, x: Any) -> Any:
            x = F.normalize(self.mlp(x), dim=1)
            return F.conv1d(x, F.normalize(self.last_layer.weight_v, dim=1))

    class Plain(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            swin, width = hasattr(measures, "layers"), measures.embed_dim
            self.online_encoder = nn.Module()
            self.online_encoder.mask_token = nn.Parameter(torch.randn(measures.mask_token_shape) * 0.02)
            self.online_encoder.model = Swin() if swin else resnet()
            self.mim2org = nn.ModuleDict({"decoder_pred": nn.Sequential(nn.Conv2d(width, 3 * 32 * 32, 1))})
            self.online_projector, self.class_projector = projector(width), LocalHead(width, not swin)
            self.branch_encoder = copy.deepcopy(self.online_encoder.model)
            self.branch_projector = copy.deepcopy(self.online_projector)
            self.branch_class_projector = copy.deepcopy(self.class_projector)
            self.class_loss = nn.Module()
            self.class_loss.register_buffer("center", torch.zeros(1, config.prototypes, 1))
            self.register_buffer("queue", F.normalize(torch.randn(config.out_dim, config.queue_size), dim=0))
            self.register_buffer("queue_ptr", torch.zeros(1, dtype=torch.int64))

        def teachers(self) -> list[tuple[Any, Any]]:
            return [
                (self.branch_encoder, self.online_encoder.model),
                (self.branch_projector, self.online_projector),
                (self.branch_class_projector, self.class_projector),
            ]

        def mim(self, image: Any, features: Any, mask: Any) -> Any:
            made = F.pixel_shuffle(self.mim2org["decoder_pred"](features), 32)
            times = image.shape[-1] // mask.shape[-1]
            mask = mask.repeat_interleave(times, 1).repeat_interleave(times, 2).unsqueeze(1)
            distance = (made - image).abs()
            focal = distance * (2 * torch.sigmoid(0.2 * distance) - 1)
            spatial = (focal * mask).sum() / (mask.sum() + 1e-5) / 3
            soft = mask + (1 - mask) * 0.001
            made = made * soft + (0.5 * made.detach() + 0.5 * image) * (1 - soft)
            gap = torch.fft.fft2(made, norm="ortho").mean(0) - torch.fft.fft2(image, norm="ortho").mean(0)
            power = gap.real**2 + gap.imag**2
            weight = torch.log(power.sqrt() + 1)
            weight = (weight / weight.max()).nan_to_num(0.0).clamp(0, 1).detach()
            return spatial + (weight * power).mean()

        def nce(self, query: Any, key: Any, queue: Any) -> Any:
            query = F.normalize(query, dim=1)
            own = (query * key).sum(dim=1, keepdim=True)
            logits = torch.cat([own, query @ queue], dim=1) / config.temperature
            return F.cross_entropy(logits, torch.zeros(len(logits), dtype=torch.int64))

        def enqueue(self, keys: Any) -> None:
            place = int(self.queue_ptr)
            self.queue[:, place : place + len(keys)] = keys.T
            self.queue_ptr[0] = (place + len(keys)) % config.queue_size

        def cross_entropy(self, student: Any, teacher: Any) -> Any:
            wanted = F.softmax((teacher - self.class_loss.center) / config.teacher_temperature[0], dim=1)
            loss = -(wanted * F.log_softmax(student / config.student_temperature, dim=1)).sum(dim=1).mean()
            mean = teacher.mean(dim=(0, 2)).view(1, -1, 1)
            self.class_loss.center.copy_(self.class_loss.center * 0.9 + mean * 0.1)
            return loss

        def matched(self, one: Any, other: Any, first: Any, second: Any) -> Any:
            value, index = torch.cdist(first.flatten(1, 2), second.flatten(1, 2)).min(dim=2)
            chosen = value.topk(config.matches, dim=1, largest=False).indices.sort(dim=1).values
            partner = index.gather(1, chosen)
            width = one.shape[1]
            return (
                one.flatten(2).gather(2, chosen.unsqueeze(1).expand(-1, width, -1)),
                other.flatten(2).gather(2, partner.unsqueeze(1).expand(-1, width, -1)),
            )

        def forward(self, views: dict[str, Any]) -> Any:
            token, network = self.online_encoder.mask_token, self.online_encoder.model
            org = look(network, views["shown"]["first"], token, views["mask"]["first"])
            view = look(network, views["shown"]["second"], token, views["mask"]["second"])
            rec = (
                self.mim(views["image"]["first"], org, views["mask"]["first"])
                + self.mim(views["image"]["second"], view, views["mask"]["second"])
            ) / 2
            with torch.no_grad():
                view_teacher = look(self.branch_encoder, views["image"]["second"])
                org_teacher = look(self.branch_encoder, views["image"]["first"])
            q_org = self.online_projector["layer"](F.adaptive_avg_pool2d(org, 1).flatten(1))
            q_view = self.online_projector["layer"](F.adaptive_avg_pool2d(view, 1).flatten(1))
            with torch.no_grad():
                k_org = self.branch_projector["layer"](F.adaptive_avg_pool2d(org_teacher, 1).flatten(1))
                k_view = self.branch_projector["layer"](F.adaptive_avg_pool2d(view_teacher, 1).flatten(1))
                k_org, k_view = F.normalize(k_org, dim=1), F.normalize(k_view, dim=1)
            queue = self.queue.clone()
            everywhere = (self.nce(q_org, k_view, queue) + self.nce(q_view, k_org, queue)) / 2
            self.enqueue(k_view)
            self.enqueue(k_org)
            first, second = views["places"]["first"], views["places"]["second"]
            own_1, other_1 = self.matched(org, view_teacher, first, second)
            own_2, other_2 = self.matched(view, org_teacher, second, first)
            student_1, student_2 = self.class_projector(own_1), self.class_projector(own_2)
            with torch.no_grad():
                teacher_1 = self.branch_class_projector(other_1)
                teacher_2 = self.branch_class_projector(other_2)
            local = (self.cross_entropy(student_1, teacher_1) + self.cross_entropy(student_2, teacher_2)) / 2
            total = rec + everywhere + local
            self.seen = [x.item() for x in (rec, everywhere, local, total)]
            return total

    return Plain()


def plain_update(model: Any) -> Any:
    """Adan over one tensor after the other, then the teacher's average likewise."""
    import torch

    from swath.objectives.modules.ema import cosine_momentum

    trained = [p for p in model.parameters() if p.requires_grad]
    state: dict[int, Any] = {}
    b1, b2, b3 = 0.98, 0.92, 0.99
    step = 0

    @torch.no_grad()
    def update() -> None:
        nonlocal step
        step += 1
        for number, p in enumerate(trained):
            g = p.grad
            if number not in state:
                state[number] = [torch.zeros_like(p) for _ in range(3)] + [g.clone()]
            m, v, n, before = state[number]
            change = g - before
            m.mul_(b1).add_(g, alpha=1 - b1)
            v.mul_(b2).add_(change, alpha=1 - b2)
            ahead = g + b2 * change
            n.mul_(b3).addcmul_(ahead, ahead, value=1 - b3)
            root = (n.sqrt() / (1 - b3**step) ** 0.5).add_(1e-8)
            move = (m / (1 - b1**step)).add_(b2 * v / (1 - b2**step)).div_(root)
            p.add_(move, alpha=-RATE).div_(1 + RATE * (DECAY if p.ndim > 1 else 0.0))
            before.copy_(g)
        tau = cosine_momentum(step - 1, TOTAL, 0.996)
        for teacher, student in model.teachers():
            for t, s in zip(teacher.parameters(), student.parameters(), strict=True):
                t.data = tau * t.data + (1 - tau) * s.data

    return update


def swath_update(model: Any) -> Any:
    """What the engine does after a backward pass."""
    from swath.training.config.sections import OptimizerConfig
    from swath.training.optim.param_groups import build_optimizer

    optimizer = build_optimizer(model, OptimizerConfig(name="adan", lr=RATE, weight_decay=DECAY), RATE)
    step = 0

    def update() -> None:
        nonlocal step
        step += 1
        optimizer.step()
        model.after_step(step, TOTAL)

    return update


def make_views(name: str) -> dict[str, Any]:
    """Random views as a data loader would hand them over: masked, filled, with the places of their cells."""
    import torch

    from swath.objectives.modules.cell_matching import cell_locations

    _, options, batch = MODELS[name]
    size, block = options["view_size"], options["mask_block"]
    torch.manual_seed(0)
    keys = ("image", "shown", "gsd", "valid", "sensor", "hidden", "mask", "places")
    views: dict[str, Any] = {key: {} for key in keys}
    for view in ("first", "second"):
        image = torch.randn(batch, 3, size, size)
        hidden = torch.rand(batch, (size // block) ** 2).argsort(dim=1).view(batch, size // block, -1)
        hidden = hidden < 0.6 * (size // block) ** 2
        pixels = hidden.repeat_interleave(block, 1).repeat_interleave(block, 2).unsqueeze(1)
        sides = torch.randint(size // 2 + 1, size, (batch, 2))
        box = torch.cat([((size - sides) * torch.rand(batch, 2)).floor(), sides], dim=1).float()
        flipped = torch.rand(batch) < 0.5
        one = {
            "image": image,
            "shown": torch.where(pixels, image.mean(dim=(2, 3), keepdim=True), image),
            "gsd": torch.ones(batch),
            "valid": None,
            "sensor": None,
            "hidden": hidden,
            "mask": hidden.repeat_interleave(block // 4, 1).repeat_interleave(block // 4, 2).float(),
            "places": cell_locations(box, flipped, (size // 32, size // 32)),
        }
        for key, value in one.items():
            views[key][view] = value
    views["apart"] = torch.zeros(batch, dtype=torch.bool)
    return views


def weights_of(folder: str, kind: str) -> str:
    """Path of the weights under the names of one kind of model."""
    return str(Path(folder) / f"{kind}.safetensors")


def write_weights(folder: str, name: str) -> None:
    """One random initialization under both models' names; the teacher is not quite the student."""
    import torch
    from safetensors.torch import save_file

    from swath.models.importers.cmid import cmid_layout

    torch.manual_seed(0)
    plain = build_plain(name).state_dict()
    for key, value in plain.items():
        if key.endswith("bias_table") or (key.startswith("branch") and value.is_floating_point()):
            value.add_(0.02 * torch.randn_like(value) * (value.std() if key.startswith("branch") else 1))
    ours = build_swath(name).state_dict()
    ours |= {place: to(plain[key]).contiguous().clone() for key, (place, to) in cmid_layout(plain).items()}
    save_file({key: value.contiguous() for key, value in plain.items()}, weights_of(folder, "plain"))
    save_file(ours, weights_of(folder, "swath"))


def worker(variant: str, name: str, threads: int, folder: str) -> None:
    """A few steps of one variant."""
    os.environ["SWATH_CPU_MATMUL"] = "torch" if "-onednn" in variant else "auto"
    import torch
    from safetensors.torch import load_file

    from swath.cpu.allocator import retain_freed_memory

    torch.set_num_threads(threads)
    if variant.startswith("plain") == ("+malloc" in variant) and "-malloc" not in variant:
        retain_freed_memory()
    kind = "plain" if variant.startswith("plain") else "swath"
    torch.manual_seed(0)
    model = build_plain(name) if kind == "plain" else build_swath(name)
    model.load_state_dict(load_file(weights_of(folder, kind)), assign=True)
    for key, parameter in model.named_parameters():
        parameter.requires_grad_(not key.startswith(("teacher.", "branch_")))
    views = make_views(name)

    def loss() -> Any:
        value = model(views)
        return value["total"] if isinstance(value, dict) else value

    run_steps(model, loss, update=(plain_update if kind == "plain" else swath_update)(model))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", default="swin_base,resnet50")
    parser.add_argument("--variants", default=",".join(VARIANTS))
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--out", help="write the figures as JSON here")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    parser.add_argument("--prepare", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--weights", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.prepare:
        write_weights(options.weights, options.models)
        return
    if options.worker:
        worker(options.worker, options.models, options.threads, options.weights)
        return
    results: dict[str, Any] = {"threads": options.threads}
    for name in options.models.split(","):
        with tempfile.TemporaryDirectory() as folder:
            prepare = [sys.executable, __file__, "--prepare", "--models", name, "--weights", folder]
            subprocess.run(prepare, check=True)  # in a process of its own, so that this one stays small

            def command(variant: str, name: str = name, folder: str = folder) -> list[str]:
                return [
                    __file__, "--worker", variant, "--models", name,
                    "--threads", str(options.threads), "--weights", folder,
                ]  # fmt: skip

            encoder, shape, batch = MODELS[name]
            results[name] = compare(
                f"CMID, {encoder}, {shape['view_size']} px, {options.threads} threads, images",
                options.variants.split(","),
                command,
                batch=batch,
                rounds=options.rounds,
            )
    if options.out:
        from swath.files import write_json

        write_json(options.out, results)


if __name__ == "__main__":
    main()
