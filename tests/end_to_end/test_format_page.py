"""The reader printed in docs/format.md works on a real output, and the tables of that page are true."""

import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import h5py
import numpy as np

PAGE = Path(__file__).resolve().parents[2] / "docs" / "format.md"
INTEGERS = "index rows columns bits group_size groups beam refine regrid damping_attempts dead_inputs"
INTEGERS = (INTEGERS + " tokens tokens_sent").split()
REALS = "alpha alpha_next damp damping shrink compensation objective output_error model_error held_out_error clipped largest_activation".split()
FLAGS = "symmetric permuted_groups".split()
TEXTS = "scale_type method grid order alpha_rule".split()


def skip(reason):
    print("skipped:", reason)
    sys.exit(77)


def quantize(program, data, out, *options):
    command = ["mpirun", "-n", "2", program, "quantize", str(data / "model")]
    command += ["--calibration", str(data / "calibration.txt"), "-o", str(out)]
    command += ["--method", "snrq", "--sequences", "8", "--length", "128", *options]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode != 0:
        sys.exit(f"quantize failed with {done.returncode}:\n{done.stdout}")


def floats_of(dataset):
    """Values of a dataset of scales, by arithmetic on their bits."""
    if dataset.attrs.get("dtype", b"") != b"BF16":
        return dataset[...].astype(np.float32)
    words = dataset[...].astype("<u4")
    return np.frombuffer((words * 65536).astype("<u4").tobytes(), "<f4").reshape(words.shape)


def e2m1(code):
    """The code-th number of two bits of exponent and one of mantissa, in ascending order; 7 is zero."""
    bits = abs(code - 7)
    value = bits * 0.5 if bits < 2 else (1 + bits % 2 / 2) * 2 ** (bits // 2 - 1)
    return value if code >= 7 else -value


def e4m3(code):
    """The code-th number of four bits of exponent and three of fraction, in ascending order; 126 is zero."""
    bits = abs(code - 126)
    value = bits / 512 if bits < 8 else (1 + bits % 8 / 8) * 2.0 ** (bits // 8 - 7)
    return value if code >= 126 else -value


def unpack(module):
    """Weights, one by one: a row of codes is one big integer."""
    rows, columns, bits = (int(module.attrs[key]) for key in ("rows", "columns", "bits"))
    packed, zeros, group = module["codes"][...], module["zeros"][...], module["g_idx"][...]
    scales = floats_of(module["scales"])
    minima = floats_of(module["minima"]) if "minima" in module else None
    out = np.empty((rows, columns), np.float32)
    for r in range(rows):
        stream = int.from_bytes(packed[r].tobytes(), "little")
        for c in range(columns):
            code = (stream >> (c * bits)) & ((1 << bits) - 1)
            level = np.float32(code - int(zeros[r, group[c]]))
            if module.attrs.get("format") in (b"mxfp4", b"nvfp4"):
                level = np.float32(e2m1(code))
            if module.attrs.get("format") == b"fp8_block":
                level = np.float32(e4m3(code))
            out[r, c] = scales[r, group[c]] * level
            if minima is not None:
                out[r, c] -= minima[r, group[c]]
        assert stream >> (columns * bits) == 0, "unused bits are 0"
    return out


def check_reader(reader, block, folder, end=""):
    """All modules whose names end so."""
    with h5py.File(block, "r") as file:
        for name, module in file.items():
            if not name.endswith(end):
                continue
            target = folder / "weights.npy"
            subprocess.run([sys.executable, str(reader), str(block), name, str(target)], check=True)
            found, expected = np.load(target), unpack(module)
            assert found.dtype == np.float32 and found.shape == expected.shape, name
            assert np.array_equal(found.view(np.uint32), expected.view(np.uint32)), name
            assert np.any(expected != 0), name


def check_block(block, scale_dtype, page):
    with h5py.File(block, "r") as file:
        assert dict(file.attrs) == {"format": b"snrq-block", "format_version": 1, "block": 0}
        for name, module in file.items():
            attributes = module.attrs
            assert sorted(attributes) == sorted(INTEGERS + REALS + FLAGS + TEXTS), list(attributes)
            for keys, kind in ((INTEGERS, np.int64), (REALS, np.float64), (FLAGS, np.uint8), (TEXTS, np.bytes_)):
                for key in keys:
                    assert isinstance(attributes[key], kind), (name, key, type(attributes[key]))
                    assert f"`{key}`" in page, f"{key} is not on the page"
            assert attributes["alpha_rule"] == b"auto" and attributes["order"] == b"diagonal"
            assert attributes["damp"] == 0.01 and attributes["shrink"] > 0.1
            writes = name.endswith(("o_proj", "down_proj"))
            assert (attributes["compensation"] > 0) == writes, name
            rows, columns, groups = attributes["rows"], attributes["columns"], attributes["groups"]
            assert groups == -(-columns // attributes["group_size"])
            expected = {
                "codes": (np.uint8, (rows, -(-columns * attributes["bits"] // 8))),
                "scales": (scale_dtype, (rows, groups)),
                "zeros": (np.uint8, (rows, groups)),
                "g_idx": (np.int32, (columns,)),
            }
            assert sorted(module) == sorted(expected)
            for key, (kind, shape) in expected.items():
                dataset = module[key]
                assert dataset.dtype == kind and dataset.shape == shape, (name, key)
                assert dataset.chunks is None and dataset.compression is None


def check_rest(path, model):
    """rest.h5 holds the model's bytes, and with the blocks all of its tensors."""
    data = (model / "model.safetensors").read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    header.pop("__metadata__", None)
    with h5py.File(path, "r") as file:
        assert dict(file.attrs) == {"format": b"snrq-rest", "format_version": 1}
        for name, dataset in file.items():
            begin, end = (8 + length + x for x in header[name]["data_offsets"])
            assert list(dataset.shape) == header[name]["shape"], name
            assert dataset[...].tobytes() == data[begin:end], name
            assert (dataset.attrs.get("dtype") == b"BF16") == (header[name]["dtype"] == "BF16"), name
        names = {name + ".weight" for block in path.parent.glob("block-*.h5") for name in h5py.File(block, "r")}
        assert names | set(file) == set(header) and not names & set(file)


def check_manifest(out):
    lines = (out / "manifest.jsonl").read_text().split("\n")
    assert lines.pop() == "" and all(lines)
    records = [json.loads(line) for line in lines]
    for number, (line, record) in enumerate(zip(lines, records)):
        assert re.fullmatch(r',"line":"[0-9a-f]{16}"}', line[-27:])
        assert record["record"] == number and len(record["configuration"]) == 32
        keys = list(record)
        assert keys == sorted(keys[:-1]) + ["line"]
        if "file" in record:
            assert (out / record["file"]).stat().st_size == record["bytes"] and len(record["xxh3"]) == 32
            check_hash(out / record["file"], record["xxh3"])
    assert records[-1]["complete"] is True and "file" not in records[-1]
    assert {p.name for p in out.glob("*.h5")} <= {record.get("file") for record in records}


def check_hash(path, expected):
    """Where the xxHash tools are installed, they agree."""
    try:
        text = subprocess.run(["xxh128sum", str(path)], capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return
    assert text.split()[0] == expected, path


def main():
    program, data = os.environ.get("SNRQ"), Path(os.environ.get("SNRQ_TEST_DATA", "."))
    if not program or not os.access(program, os.X_OK):
        skip("SNRQ does not name the program")
    if not (data / "model" / "config.json").exists():
        skip("SNRQ_TEST_DATA does not hold the bundled model")
    page = PAGE.read_text()
    blocks = re.findall(r"^```python\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
    assert len(blocks) == 1, "the page has one Python block"
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        reader = folder / "reader.py"
        reader.write_text(blocks[0])
        for scale_type, dtype in (("f16", np.float16), ("bf16", np.uint16)):
            out = folder / scale_type
            quantize(program, data, out, "--bits", "3", "--group-size", "64", "--scale-type", scale_type)
            check_block(out / "block-00000.h5", dtype, page)
            check_reader(reader, out / "block-00000.h5", folder)
        for name in ("q4_1", "mxfp4", "nvfp4", "fp8_block"):
            quantize(program, data, folder / name, "--format", name)
            with h5py.File(folder / name / "block-00000.h5", "r") as file:
                assert file.attrs["format_version"] == 2
                module = file["model.layers.0.self_attn.k_proj"]
                assert module.attrs["format"] == name.encode() and ("minima" in module) == (name == "q4_1")
            check_reader(reader, folder / name / "block-00000.h5", folder, "k_proj")
        check_rest(out / "rest.h5", data / "model")
        check_manifest(out)


main()
