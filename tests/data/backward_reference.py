"""Reference backward pass of the supported families in numpy float64, for `snrq sensitivity`.

The forward pass is forward_reference.py's, run on numbers that remember how they were made (Traced): every operation
leaves a function that takes the gradient of its result back to its operands.  Only what fills arrays item by item is
written anew here.  So no formula of a backward pass is written down but those of single operations, and
check_by_differences() compares them with finite differences of the forward pass as it is.

Labels are drawn from the model's own distribution with Philox4x32-10 (Salmon et al. 2011), keyed by seed, sequence and
position, as the program says in its documentation.
"""
import numpy as np

import forward_reference


def philox(counter, key):
    """Four words of 32 bits."""
    c, k, mask = list(counter), list(key), 0xffffffff
    for _ in range(10):
        a, b = 0xd2511f53 * c[0], 0xcd9e8d57 * c[2]
        c = [(b >> 32) ^ c[1] ^ k[0], b & mask, (a >> 32) ^ c[3] ^ k[1], a & mask]
        k = [(k[0] + 0x9e3779b9) & mask, (k[1] + 0xbb67ae85) & mask]
    return c


def uniform(seed, sequence, position):
    mask = 0xffffffff
    words = philox((position & mask, position >> 32, sequence & mask, sequence >> 32), (seed & mask, seed >> 32))
    return ((words[0] >> 5) * 2 ** 26 + (words[1] >> 6)) / 2.0 ** 53


def unbroadcast(g, shape):
    """Sums up what was repeated to make `g` of an array of `shape`."""
    g = g.sum(axis=tuple(range(g.ndim - len(shape)))) if g.ndim > len(shape) else g
    repeated = tuple(i for i, n in enumerate(shape) if n == 1 and g.shape[i] != 1)
    return g.sum(axis=repeated, keepdims=True) if repeated else g


def value_of(x):
    return x.value if isinstance(x, Traced) else x


class Traced:
    """An array, and how its gradient goes back: pairs (operand, function of the gradient)."""
    made = 0

    def __init__(self, value, *back):
        self.value, self.grad = np.asarray(value), None
        self.back = [(operand, f) for operand, f in back if isinstance(operand, Traced)]
        Traced.made += 1
        self.number = Traced.made

    dtype = property(lambda self: self.value.dtype)
    shape = property(lambda self: self.value.shape)
    T = property(lambda self: Traced(self.value.T, (self, lambda g: g.T)))

    def __len__(self):
        return len(self.value)

    def __iter__(self):
        return (self[i] for i in range(len(self)))

    def __getitem__(self, index):
        def back(g):
            out = np.zeros_like(self.value)
            np.add.at(out, index, g)
            return out
        return Traced(self.value[index], (self, back))

    def reshape(self, *shape):
        return Traced(self.value.reshape(*shape), (self, lambda g: g.reshape(self.shape)))

    def sum(self, axis=None, keepdims=False):
        def back(g):
            return np.broadcast_to(g if keepdims or axis is None else np.expand_dims(g, axis), self.shape)
        return Traced(self.value.sum(axis=axis, keepdims=keepdims), (self, back))

    def mean(self, axis, keepdims):
        return self.sum(axis, keepdims) / self.shape[axis]

    def __array_ufunc__(self, ufunc, method, *x):
        assert method == "__call__"
        v = [value_of(operand) for operand in x]
        out = ufunc(*v)
        slopes = {
            np.add: lambda: (lambda g: g, lambda g: g),
            np.subtract: lambda: (lambda g: g, lambda g: -g),
            np.multiply: lambda: (lambda g: g * v[1], lambda g: g * v[0]),
            np.divide: lambda: (lambda g: g / v[1], lambda g: -g * out / v[1]),
            np.power: lambda: (lambda g: g * v[1] * v[0] ** (v[1] - 1),),
            np.matmul: lambda: (lambda g: g @ np.swapaxes(v[1], -1, -2), lambda g: np.swapaxes(v[0], -1, -2) @ g),
            np.negative: lambda: (lambda g: -g,),
            np.exp: lambda: (lambda g: g * out,),
            np.tanh: lambda: (lambda g: g * (1 - out ** 2),),
            np.sqrt: lambda: (lambda g: g / (2 * out),)}[ufunc]()

        def fitted(slope, operand):
            return lambda g: unbroadcast(slope(g), np.shape(value_of(operand)))
        return Traced(out, *((operand, fitted(slope, operand)) for operand, slope in zip(x, slopes)))

    def __array_function__(self, function, types, args, kwargs):
        return {np.concatenate: concatenate, np.stack: stack, np.split: split, np.clip: clip,
                np.repeat: repeat}[function](*args, **kwargs)

    def __add__(self, other):
        return np.add(self, other)

    def __sub__(self, other):
        return np.subtract(self, other)

    def __mul__(self, other):
        return np.multiply(self, other)

    def __truediv__(self, other):
        return np.divide(self, other)

    def __pow__(self, other):
        return np.power(self, other)

    def __matmul__(self, other):
        return np.matmul(self, other)

    def __neg__(self):
        return np.negative(self)

    def __radd__(self, other):
        return np.add(other, self)

    def __rsub__(self, other):
        return np.subtract(other, self)

    def __rmul__(self, other):
        return np.multiply(other, self)

    def __rtruediv__(self, other):
        return np.divide(other, self)


def concatenate(parts, axis=0):
    ends = np.cumsum([p.shape[axis] for p in parts])[:-1]
    return Traced(np.concatenate([value_of(p) for p in parts], axis),
                  *((p, lambda g, i=i: np.split(g, ends, axis)[i]) for i, p in enumerate(parts)))


def stack(parts, axis):
    return Traced(np.stack([value_of(p) for p in parts], axis),
                  *((p, lambda g, i=i: np.take(g, i, axis)) for i, p in enumerate(parts)))


def split(x, where, axis):
    indices = np.split(np.arange(x.shape[axis]), where)
    assert axis == 1
    return [x[:, part] for part in indices]


def clip(x, low, high):
    return Traced(np.clip(x.value, low, high), (x, lambda g: g * ((x.value >= low) & (x.value <= high))))


def repeat(x, count, axis):
    return Traced(np.repeat(x.value, count, axis),
                  (x, lambda g: g.reshape(*x.shape[:axis + 1], count, *x.shape[axis + 1:]).sum(axis + 1)))


def go_back(end, gradient):
    """Fills in `grad` of everything that `end` was made of."""
    end.grad, seen, waiting = gradient, {end.number: end}, [end]
    while waiting:
        for operand, _ in waiting.pop().back:
            if operand.number not in seen:
                seen[operand.number] = operand
                waiting.append(operand)
    for number in sorted(seen, reverse=True):
        node = seen[number]
        for operand, f in node.back:
            g = f(node.grad)
            operand.grad = g if operand.grad is None else operand.grad + g


class Model(forward_reference.Model):
    """`outputs`: {module: [what it gave, call by call]}."""
    def __init__(self, directory):
        super().__init__(directory)
        self.outputs = {}

    def linear(self, x, name):
        y = Traced(value_of(super().linear(x, name))) if not isinstance(x, Traced) else super().linear(x, name)
        self.outputs.setdefault(name, []).append(y)
        return y

    def attention(self, y, layer):
        n, cap = len(y), self.c.get("attn_logit_softcapping") if self.kind == "gemma2" else None
        angle, factor = self.angles(n, layer)
        cos, sin = (factor * part(angle)[:, None] for part in (np.cos, np.sin))
        q, k, v = self.heads_of(y, layer, cos, sin)
        ahead = np.subtract.outer(np.arange(n), np.arange(n))
        seen, heads = (ahead >= 0) & (ahead < self.window(layer)), []
        for head in range(self.heads):
            kv = head * k.shape[1] // self.heads
            score = q[:, head] @ k[:, kv].T * self.score_scale(q.shape[-1])
            score = cap * np.tanh(score / cap) if cap else score
            weight = np.exp(score - score.value.max(axis=1, keepdims=True)) * seen
            heads.append(weight / weight.sum(axis=1, keepdims=True) @ v[:, kv])
        return self.linear(np.concatenate(heads, axis=1), "model.layers.%d.self_attn.o_proj" % layer)

    def weights_of(self, logits, bias):
        """{expert: weight}: who is chosen is a constant."""
        best, c = sorted(self.chosen(logits.value, bias)), self.c
        if bias is None:
            p = np.exp(logits - logits.value.max())
            p = p / p.sum()
            total = sum(p[e] for e in best) if self.kind == "mixtral" or c.get("norm_topk_prob") else 1
            return {e: p[e] / total for e in best}
        p = 1 / (1 + np.exp(-logits))
        total = sum(p[e] for e in best) + 1e-20 if c["norm_topk_prob"] else 1
        return {e: p[e] / total * c["routed_scaling_factor"] for e in best}

    def experts(self, y, layer):
        p, names = "model.layers.%d.mlp." % layer, ("gate_proj", "up_proj", "down_proj")
        if self.kind == "mixtral":
            p, names = "model.layers.%d.block_sparse_moe." % layer, ("w1", "w3", "w2")
        bias, rows = self.w.get(p + "gate.e_score_correction_bias"), []
        for t, logits in enumerate(self.linear(y, p + "gate")):
            rows.append(sum(weight * self.mlp(y[t:t + 1], p + "experts.%d." % e, names)
                            for e, weight in self.weights_of(logits, bias).items()))
        out = np.concatenate(rows, axis=0)
        if p + "shared_experts.gate_proj.weight" in self.w:
            out = out + self.mlp(y, p + "shared_experts.")
        return out

    def gradients(self, ids, seed, sequence):
        """The labels, and {module: gradients of its outputs, [calls or tokens, rows]}."""
        self.outputs = {}
        z = self.logits(ids)
        p = np.exp(z.value - z.value.max(axis=1, keepdims=True))
        p /= p.sum(axis=1, keepdims=True)
        drawn = [uniform(seed, sequence, t) for t in range(len(ids))]
        labels = np.array([int(np.argmax(np.cumsum(row) > u)) for row, u in zip(p, drawn)])
        p[np.arange(len(ids)), labels] -= 1
        go_back(z, p)
        return labels, {name: np.concatenate([y.grad for y in calls]) for name, calls in self.outputs.items()}


class Nudged(forward_reference.Model):
    """The forward pass as it is, with something added to what every module gives."""
    def __init__(self, directory, added):
        super().__init__(directory)
        self.added, self.size, self.calls = added, 0.0, {}

    def linear(self, x, name):
        y = super().linear(x, name)
        at = self.calls.get(name, 0)
        self.calls[name] = at + len(y)
        return y + self.size * self.added[name][at:at + len(y)] if name in self.added else y

    def loss(self, ids, labels, size):
        self.size, self.calls = size, {}
        return -self.log_p(ids)[np.arange(len(ids)), labels].sum()


def check_by_differences(directory, ids, size=1e-5):
    """Largest difference, relative, between gradients along random directions, each of one module, and differences of
    losses."""
    labels, gradients = Model(directory).gradients(ids, 3, 1)
    random, worst = np.random.default_rng(5), 0.0
    for name, g in gradients.items():
        if name in ("lm_head", "model.embed_tokens"):
            continue
        direction = random.standard_normal(g.shape)
        nudged = Nudged(directory, {name: direction})
        slope = (nudged.loss(ids, labels, size) - nudged.loss(ids, labels, -size)) / (2 * size)
        worst = max(worst, abs(slope - (g * direction).sum()) / np.sqrt((g * g).sum() + 1e-12))
    return worst


def sums_of_squares(directory, windows, seed):
    """{module: the mean over tokens of g g'}, and {module: g' g of every token, [windows, tokens]} but for experts."""
    model, sums, squares = Model(directory), {}, {}
    for sequence, ids in enumerate(windows):
        _, gradients = model.gradients(ids, seed, sequence)
        for name, g in gradients.items():
            sums[name] = sums.get(name, 0) + g.T @ g
            if ".experts." not in name:
                squares.setdefault(name, []).append((g * g).sum(axis=1))
    return {name: total / windows.size for name, total in sums.items()}, \
        {name: np.array(rows) for name, rows in squares.items()}


def grams(directory, windows, seed):
    """{module: the mean over tokens of g g'}"""
    return sums_of_squares(directory, windows, seed)[0]
