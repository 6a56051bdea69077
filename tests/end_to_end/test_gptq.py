"""gptq and gptaq of `snrq round` next to plain column-by-column implementations of the papers' recursions in float64.

The twins use the upper Cholesky factor of H^-1 and update the remaining weights after each column, as the papers write it; the
program uses the lower factor of H and gathers what was decided. Grids: fitted to the updated weights when a group starts.
"""
import numpy as np

import helpers

ROWS, COLUMNS = 24, 150


def make_case(path, seed):
    """Correlated inputs with a mismatch; H, D and W in float32 as the program reads them."""
    random = np.random.default_rng(seed)
    tokens = 400
    mixing = random.standard_normal((COLUMNS, COLUMNS)) * 0.2 + np.diag(random.uniform(0.5, 3.0, COLUMNS))
    x = random.standard_normal((tokens, COLUMNS)) @ mixing
    dx = 0.3 * random.standard_normal((tokens, COLUMNS)) + 0.1 * x
    tensors = {"W": random.standard_normal((ROWS, COLUMNS)), "H": x.T @ x / tokens, "D": dx.T @ x / tokens}
    tensors = {name: value.astype(np.float32) for name, value in tensors.items()}
    helpers.write_safetensors(path, {name: ("F32", value.shape, value.tobytes()) for name, value in tensors.items()})
    return {name: value.astype(np.float64) for name, value in tensors.items()}


def fit(values, bits, symmetric):
    """Scale and zero of each row of a group: min/max grids that include zero."""
    low, high = np.minimum(values.min(1), 0), np.maximum(values.max(1), 0)
    top = 2 ** bits - 1
    if symmetric:
        return 2 * np.maximum(-low, high) / top, np.full(len(values), 2 ** (bits - 1))
    scale = (high - low) / top
    return scale, np.round(-low / scale)


def twin(case, bits, group, symmetric, alpha):
    """Codes in original column order. alpha None: GPTQ; else GPTAQ with this strength."""
    h = case["H"] + 0.01 * np.mean(np.diag(case["H"])) * np.eye(COLUMNS)
    order = np.argsort(np.diag(case["H"]), kind="stable")[::-1]  # largest diagonal first
    h, d, w = h[np.ix_(order, order)], case["D"][np.ix_(order, order)], case["W"][:, order].copy()
    v = np.linalg.cholesky(np.linalg.inv(h)).T  # upper: H^-1 = V^T V
    p = np.zeros_like(h) if alpha is None else alpha * np.triu(d @ v.T, 1) @ v
    codes = np.zeros(w.shape, int)
    groups = (COLUMNS + group - 1) // group
    for i in range(COLUMNS):
        position = COLUMNS - 1 - i  # groups are counted from the column decided last
        g = position // group
        if i == 0 or (position + 1) // group != g:
            members = [COLUMNS - 1 - k for k in range(g * group, min((g + 1) * group, COLUMNS))]
            scale, zero = fit(w[:, members], bits, symmetric)
        codes[:, i] = np.clip(np.round(w[:, i] / scale) + zero, 0, 2 ** bits - 1)
        current, error = w[:, i].copy(), (w[:, i] - scale * (codes[:, i] - zero)) / v[i, i]
        w[:, i:] += current[:, None] * p[i, i:] - error[:, None] * v[i, i:]
    result = np.zeros_like(codes)
    result[:, order] = codes
    return result, groups


class Gptq(helpers.Test):
    def check(self, bits, group, symmetric, alpha):
        path, result = self.path("case.safetensors"), self.path("result.safetensors")
        case = make_case(path, seed=bits * 1000 + group)
        expected, groups = twin(case, bits, group, symmetric, alpha)
        method = ["gptq"] if alpha is None else ["gptaq", "--alpha", f"fixed:{alpha}"]
        helpers.succeed("round", path, "--method", *method, "--bits", str(bits), "--group-size", str(group),
                        "--symmetric" if symmetric else "--asymmetric", "--groups", "permuted", "--scale-type", "f32",
                        "--grid", "minmax", "--refine", "0", "-o", result)
        found = helpers.read_safetensors(result)
        self.assertEqual(found["scales"][1], [ROWS, groups])
        codes = np.frombuffer(found["codes"][2], np.uint8).reshape(ROWS, COLUMNS)
        same = (codes == expected).all(axis=1).mean()
        # float32 against float64: a near tie may send single rows another way
        self.assertGreaterEqual(same, 0.9, f"only {same:.0%} of the rows have the expected codes")

    def test_gptq_with_groups_of_a_panel(self):
        self.check(3, 128, True, None)

    def test_gptq_with_groups_inside_a_panel_and_a_short_last_one(self):
        self.check(4, 40, False, None)

    def test_gptq_with_groups_wider_than_a_panel(self):
        self.check(3, 140, True, None)

    def test_gptaq_with_small_groups(self):
        self.check(3, 32, True, 0.25)

    def test_gptaq_with_groups_across_blocks(self):
        self.check(4, 72, False, 0.5)

    def test_gptaq_without_strength_is_gptq(self):
        path = self.path("case.safetensors")
        make_case(path, seed=7)
        for method in (["gptq"], ["gptaq", "--alpha", "fixed:0"]):
            helpers.succeed("round", path, "--method", *method, "--bits", "3", "--group-size", "50", "--groups",
                            "permuted", "-o", self.path(method[0]))
        self.assertEqual(helpers.sha256(self.path("gptq")), helpers.sha256(self.path("gptaq")))


if __name__ == "__main__":
    helpers.main()
