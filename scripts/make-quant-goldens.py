#!/usr/bin/env python3
"""Makes tests/golden/quant/*.safetensors: values and gradients of the two grids, out of PyTorch.

The nested grid is stated by nested_reference.py, the clip grid (recipe paper) below. Needs torch and safetensors. Values differ in
their last bits from one version of torch to another; with --out they are made elsewhere, and --compare says how far they are from
those that are there.
"""
import argparse
import pathlib

import torch
from nested_reference import Nested
from safetensors.torch import load_file, save_file

GOLDEN = pathlib.Path(__file__).resolve().parent.parent / "tests" / "golden" / "quant"


def nested_golden(group, widths, seed):
    torch.manual_seed(seed)
    out, inp = 6, 256
    weight = torch.randn(out, inp) * (0.02 + 0.05 * torch.rand(out, 1))
    gram = torch.rand(inp) + 0.1
    grid = Nested(weight, group, widths, gram)
    stored = {"weight": weight, "gram": gram, "lo0": grid.lo0.squeeze(-1), "hi0": grid.hi0.squeeze(-1)}
    for r in widths:
        stored[f"start_rho.{r}"] = grid.rho[str(r)].detach().squeeze(-1).clone()
        stored[f"start_delta.{r}"] = grid.delta[str(r)].detach().squeeze(-1).clone()
        stored[f"start_value.{r}"] = grid(r).detach().clone()
    with torch.no_grad():  # somewhere in the middle of training, with all clamps at work
        grid.dlo.uniform_(-0.1, 0.1)
        grid.dhi.uniform_(-0.1, 0.1)
        for p in grid.rho.values():
            p += torch.empty_like(p).uniform_(-0.1, 0.1)
        for p in grid.delta.values():
            p += torch.empty_like(p).uniform_(-0.2, 0.2)
        for p in grid.v.values():
            p.uniform_(-0.8, 0.8)
    loss = 0.0
    for r in widths:
        stored[f"cotangent.{r}"] = torch.randn(out, inp)
        value = grid(r)
        stored[f"value.{r}"] = value.detach().clone()
        loss = loss + (value * stored[f"cotangent.{r}"]).sum()
    loss.backward()
    for name, p in grid.named_parameters():
        key = name if name in ("dlo", "dhi") else name.replace("v.", "offset.")
        stored[key] = p.detach().reshape(out, -1).clone()
        stored["grad." + key] = p.grad.reshape(out, -1).clone()
    code = torch.round(grid.level(8)[0]).detach().reshape(out, inp)
    stored["codes"] = code.to(torch.uint8)
    return {k: v.contiguous() for k, v in stored.items()}


def round_ste(x):
    return x + (torch.floor(x + 0.5) - x).detach()


def clip_golden(group, widths, seed):
    """MatQuant's slices (arXiv 2502.06786, eq. 3 to 7) of OmniQuant's clipped grid, straight through both roundings."""
    torch.manual_seed(seed)
    out, inp = 6, 256
    weight = torch.randn(out, inp) * 0.05
    w = weight.reshape(out, inp // group, group)
    beta = torch.empty(out, inp // group, 1).uniform_(0.5, 4).requires_grad_()
    gamma = torch.empty(out, inp // group, 1).uniform_(0.5, 4).requires_grad_()
    lo = torch.sigmoid(beta) * w.amin(-1, keepdim=True)
    hi = torch.sigmoid(gamma) * w.amax(-1, keepdim=True)
    alpha = (hi - lo) / 255
    q = round_ste((w - lo) / alpha).clamp(0, 255)
    stored, loss = {"weight": weight}, 0.0
    for r in widths:
        s = round_ste(q / 2 ** (8 - r)).clamp(0, 2 ** r - 1)
        value = (alpha * 2 ** (8 - r) * s + lo).reshape(out, inp)
        stored[f"cotangent.{r}"] = torch.randn(out, inp)
        stored[f"value.{r}"] = value.detach().clone()
        loss = loss + (value * stored[f"cotangent.{r}"]).sum()
    loss.backward()
    stored["codes"] = q.detach().reshape(out, inp).to(torch.uint8)
    for name, p in (("beta", beta), ("gamma", gamma)):
        stored[name] = p.detach().squeeze(-1).clone()
        stored["grad." + name] = p.grad.squeeze(-1).clone()
    return {k: v.contiguous() for k, v in stored.items()}


def distance(made, kept):
    """The largest difference of two files' tensors, each over the largest number of its kind."""
    assert made.keys() == kept.keys()
    return max(float((made[k].double() - kept[k].double()).abs().max() / kept[k].double().abs().max().clamp_min(1e-12))
               for k in kept)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=pathlib.Path, default=GOLDEN, help="where to (default: tests/golden/quant)")
    parser.add_argument("--compare", action="store_true", help="write nothing; print the distance from what is there")
    arguments = parser.parse_args()
    goldens = {"nested-64": nested_golden(64, (8, 4, 2), 1), "nested-row": nested_golden(0, (8, 4, 2), 2),
               "clip-64": clip_golden(64, (8, 4, 2), 3)}
    for name, tensors in goldens.items():
        path = arguments.out / (name + ".safetensors")
        if arguments.compare:
            print("%s: %.2g" % (name, distance(tensors, load_file(path))))
        else:
            arguments.out.mkdir(parents=True, exist_ok=True)
            save_file(tensors, path)


if __name__ == "__main__":
    main()
