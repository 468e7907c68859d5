"""``imax model list|check|make-tiny``: which models there are, whether one is whole, a tiny one to try."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from imax_dist.wording import file_size

GB = 1e9
LARGEST_SHARE = 0.5
"""Of the free memory: weights above it are not loaded unless asked."""


def add_parser(verbs: Any) -> None:
    """Declare the verb, its three verbs and their options."""
    parser = verbs.add_parser(
        "model",
        help="list models, check one, make a tiny one",
        description="List supported models, check that one is complete, or make a tiny one to try.",
    )
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    listing = actions.add_parser("list", help="named models, and files in IMAX_MODELS and the hub's cache")
    check = actions.add_parser("check", help="check that a model is complete and loads")
    check.add_argument(
        "name", metavar="MODEL", help="name, folder, .safetensors, .gguf or .yaml file, hub id"
    )
    check.add_argument(
        "--lora",
        action="append",
        default=[],
        metavar="PATH[:WEIGHT]",
        help="with it; repeatable",
    )
    check.add_argument("--lora-partial", action="store_true", help="merge what fits of a LoRA")
    check.add_argument("--load", action=argparse.BooleanOptionalAction, help="load it (default: if it fits)")
    tiny = actions.add_parser("make-tiny", help="write a pipeline of under 1 MB with random weights")
    tiny.add_argument("name", metavar="NAME", help="a model of imax model list")
    tiny.add_argument("folder", metavar="DIR", type=Path, help="folder to write")
    for each, run in ((listing, run_list), (check, run_check), (tiny, run_make_tiny)):
        each.add_argument("--json", action="store_true", help="the answer as JSON on stdout")
        each.set_defaults(run=run)


def run_list(options: argparse.Namespace) -> int:
    """One line a model."""
    from imax_dist.models.catalogue import catalogue

    rows, files = [_row(entry) for entry in catalogue()], _files()
    if options.json:
        print(json.dumps([*rows, *files], indent=2))
        return 0
    wide = max(len(row["name"]) for row in rows)
    print(
        f"{'model':<{wide}} {'native':>6} {'transformer':>12} {'text':>7} {'needs':>8} {'runs':<4} "
        f"{'gated':<5} {'here':<4} licence"
    )
    for row in rows:
        memory, text, needs = (
            "?" if row[key] is None else f"{row[key]:.0f} GB" if row[key] >= 1 else "< 1 GB"
            for key in ("memory_gb", "text_gb", "needs_gb")
        )
        gated, runs = ("yes" if row[key] else "no" for key in ("gated", "runs"))
        print(
            f"{row['name']:<{wide}} {row['native_px']:>6} {memory:>12} {text:>7} {needs:>8} {runs:<4} "
            f"{gated:<5} {row['here']:<4} {row['licence']}"
        )
    print(
        "Memory in bfloat16: transformer on every GPU, text encoders on the first (or --text-encoders cpu).\n"
        f"Needs: one process for twice native size, as imax plan estimates it; {_free_here() / GB:.0f} GB "
        "are free.\nWhere it is unknown without the weights (?), runs says whether those fit."
    )
    print("Another model of these architectures: give its folder, file or hub id as --model.")
    for each in files:
        print(f"{each['file']}\n    {each['is']}; {each['runs']}")
    return 0


def _files() -> list[dict[str, str]]:
    """Files of transformers in IMAX_MODELS and the hub's cache: what each is, and whether it can run here."""
    from imax_dist.errors import ImaxError
    from imax_dist.models.files.assembled import Asked, take_inventory
    from imax_dist.models.files.single_file import is_of_a_network
    from imax_dist.models.libraries import quiet_libraries
    from imax_dist.models.model_paths import hub_files, transformer_files

    rows, in_folders = [], transformer_files()
    files = [*in_folders, *hub_files()]
    if files:
        quiet_libraries()
    for file in files:
        try:
            if file not in in_folders and not is_of_a_network(file):
                continue  # the hub's cache has no folders by which to tell a LoRA
            inventory = take_inventory(Asked(file))
        except ImaxError as error:
            rows.append({"file": str(file), "is": "not usable", "runs": str(error)})
            continue
        rows.append({"file": str(file), "is": inventory.single.summary(), "runs": _runs(inventory)})
    return rows


def _runs(inventory: Any) -> str:
    """Whether it can be rendered here: all there, and the memory that the planner has for it."""
    if inventory.missing:
        return f"lacks {', '.join(inventory.missing)}"
    needed, free = _needed(str(inventory.single.file)), _free_here() / GB
    if needed is None:
        return "its memory cannot be planned"
    enough = f"{needed:.1f} GB for twice native size, {free:.1f} GB free here"
    return f"runs here ({enough})" if needed < free else f"too large for this machine ({enough})"


def _needed(model: str) -> float | None:
    """GB of one process for a poster of twice native size; None where the planner does not know it."""
    import torch

    from imax_dist.errors import ImaxError
    from imax_dist.models.blueprint import find_blueprint
    from imax_dist.pipeline.request import Request
    from imax_dist.planner.cluster import parse_cluster
    from imax_dist.planner.memory import rank_memory
    from imax_dist.planner.split import Split
    from imax_dist.planner.workload import workload_of

    on_gpu = torch.cuda.is_available()
    try:
        request = Request("-", model=model)
        work = workload_of(request, find_blueprint(model), device="gpu" if on_gpu else "cpu")
        return rank_memory(work, Split(), parse_cluster("1xH100" if on_gpu else "1xcpu")).total / GB
    except ImaxError:
        return None


def run_check(options: argparse.Namespace) -> int:
    """The model's numbers; then its files; then load it. Raises MissingInput for what is not whole."""
    from imax_dist.errors import MissingInput
    from imax_dist.models.catalogue import faults, weight_files
    from imax_dist.models.find import find_model
    from imax_dist.models.libraries import quiet_libraries
    from imax_dist.models.load import describe_model
    from imax_dist.models.lora.merge import fit_loras
    from imax_dist.models.registry import architecture_of

    quiet_libraries()
    parts = _parts(options.name)
    folder = find_model(options.name)[1]
    spec = describe_model(options.name, loras=options.lora)
    broken = faults(folder)
    if broken:
        raise MissingInput(f"model {options.name} is incomplete: " + "; ".join(broken))
    architecture_of(options.name, folder).refuse_misfits(folder)
    fitted = fit_loras(spec, folder, partial=options.lora_partial)
    size = sum(file.stat().st_size for file in weight_files(folder))
    fits = size <= LARGEST_SHARE * _free_memory()
    loads = fits if options.load is None else options.load
    if loads:
        _load(options)
    loras = "; ".join(each.summary() for each in fitted) or "none"
    numbers = {
        **parts,
        **_numbers(spec),
        "loras": loras,
        "folder": str(folder),
        "weights_gb": round(size / GB, 3),
        "loaded": loads,
    }
    if options.json:
        print(json.dumps(numbers, indent=2))
        return 0
    for key, value in numbers.items():
        print(f"{key.replace('_', ' '):<16} {value}")
    if not loads:
        print("not loaded: it would take more than half of the free memory; --load tries it all the same")
    return 0


def run_make_tiny(options: argparse.Namespace) -> int:
    """Write the folder and say how to use it."""
    from imax_dist.models.libraries import quiet_libraries
    from imax_dist.models.tiny import make_tiny

    quiet_libraries()
    folder = make_tiny(options.name, options.folder)
    size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    if options.json:
        print(json.dumps({"folder": str(folder), "bytes": size}))
        return 0
    print(f"{folder}: {file_size(size)}, random weights (its pictures are noise)")
    print(f'try: imax generate "a red sun over the sea" --model {folder} --size 160x128 --out tiny.png')
    return 0


def _load(options: argparse.Namespace) -> None:
    import torch

    from imax_dist.models.load import Loading, load

    cpu = torch.device("cpu")
    load(options.name, Loading(cpu, cpu, loras=options.lora, lora_partial=options.lora_partial))


def _parts(name: str) -> dict[str, str]:
    """What a single file is and where its other components are; nothing for a folder."""
    from imax_dist.models.files.assembled import take_inventory
    from imax_dist.models.find import asked_for

    asked = asked_for(name)
    if asked is None:
        return {}
    inventory = take_inventory(asked)
    there = {part: str(source.path) for part, source in inventory.sources.items() if part != "transformer"}
    return {"file": inventory.single.summary(), **there}


def _row(entry: Any) -> dict[str, Any]:
    about, needs = entry.settings.about, _needed(entry.name)
    weights = entry.memory_gb + entry.text_memory_gb
    return {
        "name": entry.name,
        "source": entry.settings.source,
        "native_px": entry.settings.native_side,
        "memory_gb": round(entry.memory_gb, 1),
        "text_gb": round(entry.text_memory_gb, 1),
        "needs_gb": None if needs is None else round(needs, 1),
        "runs": (weights if needs is None else needs) < _free_here() / GB,
        "gated": bool(about and about.gated),
        "present": entry.present == "yes",
        "here": entry.present,
        "licence": about.licence if about else "see its page",
    }


def _numbers(spec: Any) -> dict[str, Any]:
    settings = spec.settings
    heads = f"{spec.heads} x {spec.head_dim}"
    return {
        "model": spec.name,
        "native_px": settings.native_side,
        "pixels_per_token": spec.token_pixels,
        "vae_factor": spec.vae_factor,
        "patch": spec.patch,
        "latent_channels": spec.latent_channels,
        "attention_heads": heads if spec.kv_heads is None else f"{heads}, {spec.kv_heads} of keys and values",
        "positions": f"{spec.positions}, axes {'+'.join(map(str, spec.rope_axes))}, base {spec.rope_theta:g}",
        "text": f"{spec.text_attention}, at most {settings.text_tokens} tokens",
        "guidance": spec.guidance.replace("_", "-"),
        "quantize": settings.quantize or "none",
        "weights_sha256": spec.weights,
    }


def _free_here() -> float:
    """Bytes that a render finds: the GPU's, or the host's where there is none."""
    import torch

    return float(torch.cuda.mem_get_info()[0]) if torch.cuda.is_available() else _free_memory()


def _free_memory() -> float:
    """What a process can have; the cache of files that were read is given up for it."""
    from psutil import virtual_memory

    return float(virtual_memory().available)
