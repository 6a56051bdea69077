"""Faults of the engines' own, by engine, version and export. A reader that fails as it says here is no failure of the
test; one that reads such an export after all is reported, and the fault is to go from here."""


def version(text):
    return tuple(int(part) for part in text.split("+")[0].split(".") if part.isdigit())


def compressed_tensors(packages, form, setting):
    if form != "compressed-tensors" or setting is None:
        return None
    old = version(packages["transformers"]) < (5,)
    installed = version(packages["compressed-tensors"])
    if setting.bits in (3, 5, 6, 7) and installed < (0, 18):
        return "codes that cross words are read since 0.18"
    if "permuted" in setting.kind and installed >= (0, 19):
        return "permuted groups are refused since 0.19"
    if "asymmetric" in setting.kind and installed >= (0, 18):
        return "zero points are not unpacked since 0.18"
    if "asymmetric" in setting.kind and old and installed < (0, 15):
        return "zero points are not unpacked"
    return None


def known(engine, packages, form, setting, options):
    """The fault that an engine with these packages {name: version} has with such an export, or None."""
    if engine == "transformers":
        return compressed_tensors(packages, form, setting)
    return None
