"""The nested grid of docs/method.md, sections 1 and 2, stated in PyTorch: what the kernels are compared with."""
import torch

SHRINKS = [1 - 0.05 * k for k in range(14)]


def narrowest_first(widths):
    return sorted(widths)


def floor_below(soft, past):
    """⌊soft⌋, and the level before `past` at most; its gradient is that of soft."""
    level = torch.minimum(torch.floor(soft), past - 1)
    return soft + (level - soft).detach()


def pulled(edge, factor):
    """edge, with so many times its gradient."""
    return edge.detach() + factor * (edge - edge.detach())


def pull_of(width):
    """How much of w_r's own gradient goes to the edge that a narrower width set, where r is held there."""
    return 0.2 if width == 8 else 1.5


def least_squares(level, weight, h):
    """The scale and the middle that fit scale · level + middle to the weights of each group, weighed by h."""
    total = h.sum(-1, keepdim=True)
    mean_level, mean_weight = ((h * x).sum(-1, keepdim=True) / total for x in (level, weight))
    square = (h * (level - mean_level) ** 2).sum(-1, keepdim=True)
    product = (h * (level - mean_level) * (weight - mean_weight)).sum(-1, keepdim=True)
    scale = torch.where(square > 1e-12 * total, product / square.clamp_min(1e-30), torch.zeros_like(product))
    return scale, mean_weight - scale * mean_level, mean_level


class Nested(torch.nn.Module):
    """weight [out, in] in groups of group_size inputs (0: one a row), gram [in]; grid(r) is w_r [out, in]."""

    def __init__(self, weight, group_size, widths, gram, weights=(10.0, 3.0, 1.0)):
        super().__init__()
        self.shape, self.widths = weight.shape, list(widths)
        groups = weight.shape[1] // group_size if group_size else 1
        self.weight = weight.reshape(weight.shape[0], groups, -1)
        h = gram.reshape(1, groups, -1).expand_as(self.weight)
        self.lo0, self.hi0, fits = self.start(h, dict(zip(self.widths, weights)))
        self.dlo = torch.nn.Parameter(torch.zeros_like(self.lo0))
        self.dhi = torch.nn.Parameter(torch.zeros_like(self.hi0))
        span, centre = self.hi0 - self.lo0, (self.hi0 + self.lo0) / 2
        self.rho, self.delta, self.v = torch.nn.ParameterDict(), torch.nn.ParameterDict(), torch.nn.ParameterDict()
        for r in narrowest_first(self.widths):
            scale, middle, mean_level = fits[r]
            step = span / 2 ** r
            ratio = (scale / step).clamp(0.25, 4)
            middle = middle + (scale - ratio * step) * mean_level * (ratio != scale / step)
            self.rho[str(r)] = torch.nn.Parameter(torch.log(ratio))
            self.delta[str(r)] = torch.nn.Parameter((middle - centre) / step)
            if r != 8:
                self.v[str(r)] = torch.nn.Parameter(torch.zeros_like(self.weight))

    def start(self, h, weights):
        """The clip t · (min, max) of each group with the least error over the widths, and every width's fit there."""
        low, high = self.weight.amin(-1, keepdim=True), self.weight.amax(-1, keepdim=True)
        assert (low < high).all(), "a group of one number, which the kernels widen"
        best = None
        for t in SHRINKS:
            lo, hi, error, fits = t * low, t * high, 0.0, {}
            code = torch.floor((self.weight - lo) / (hi - lo) * 256).clamp(0, 255)
            for r in self.widths:
                level = torch.floor(code / 2 ** (8 - r)) - (2 ** (r - 1) - 0.5)
                scale, middle, _ = fits[r] = least_squares(level, self.weight, h)
                error = error + weights[r] * (h * (scale * level + middle - self.weight) ** 2).sum(-1, keepdim=True)
            found = [lo, hi, error] + [x for r in self.widths for x in fits[r]]
            best = found if best is None else [torch.where(error < best[2], new, old) for new, old in zip(found, best)]
        fits = {r: best[3 + 3 * i:6 + 3 * i] for i, r in enumerate(self.widths)}
        return best[0], best[1], fits

    def clip(self):
        span = self.hi0 - self.lo0
        return self.lo0 + self.dlo * span, self.hi0 + self.dhi * span

    def level(self, width):
        """(s_r, r), differentiable."""
        lo, hi = self.clip()
        parent, below = None, 0
        for r in narrowest_first({*self.widths, 8}):
            u = (self.weight - lo) / (hi - lo) * 2 ** r
            if str(r) in self.v:
                u = u + self.v[str(r)]
            first = torch.zeros_like(u) if parent is None else parent * 2 ** (r - below)
            first = pulled(first, pull_of(r)) if r == width else first
            past = first + 2 ** (r - below)
            parent, below = floor_below(torch.minimum(torch.maximum(u, first), past), past), r
            if r == width:
                return parent, below
        raise ValueError("%d bits are not trained" % width)

    def forward(self, width):
        lo, hi = self.clip()
        step = (hi - lo) / 2 ** width
        middle = (lo + hi) / 2 + self.delta[str(width)] * step.detach()
        level = self.level(width)[0] - (2 ** (width - 1) - 0.5)
        return (step * torch.exp(self.rho[str(width)]) * level + middle).reshape(self.shape)
