"""Spoilt files by the thousand, read in processes whose memory is measured."""

from __future__ import annotations

import json
from typing import Any

from tests.faults.drill import Mutation, Workspace, drill

KINDS = ("annotation", "manifest", "recipe", "checkpoint", "zip", "parquet", "idx", "npy shard", "png shard")
MEMORY = 1024  # MiB, with torch, which takes half of it
SEED = 20


def fuzzed(ground: Workspace, kinds: tuple[str, ...], count: int) -> dict[str, Any]:
    """Runs the fuzzer on some kinds in one process; its findings by kind."""
    room = ground.folder / " ".join(kinds)
    words = ("-m", "tests.faults.fuzz", ",".join(kinds), count, SEED, room)
    done = ground.run("python", *words, timeout=1500, env={"MALLOC_ARENA_MAX": "2"})
    assert done.returncode == 0, f"the reading process died ({done.returncode}): {done.stderr[-1500:]}"
    found = json.loads(done.stdout)
    for kind, result in found.items():
        findings = result["findings"]
        assert not findings, f"{len(findings)} of {count} files of kind {kind}, the first: {findings[0]}"
        assert result["outcomes"].get("refused", 0) > count // 10, f"{kind}: hardly a file is spoilt: {result}"
        assert result["peak_mib"] < MEMORY, f"{kind}: {result['peak_mib']} MiB"
    assert not list(room.rglob("canary")) and not (ground.code / "canary").exists(), "something was executed"
    return found


def _summary(found: dict[str, Any]) -> str:
    parts = [
        f"{kind} {r['outcomes'].get('read', 0)} read, {r['outcomes']['refused']} refused" for kind, r in found.items()
    ]
    slowest, peak = max(r["slowest"] for r in found.values()), max(r["peak_mib"] for r in found.values())
    return f"{'; '.join(parts)}; the slowest in {slowest:.2f} s, peak {peak} MiB with torch"


@drill(
    "fuzzed images",
    "10,000 spoilt images: pixels or a reason; no crash, no hang, memory below 1 GiB",
    Mutation(
        "one reason for whatever Pillow raises",
        "preprocess/images/decode.py",
        "except Exception as error:  # Pillow's readers raise nearly anything on hostile bytes",
        "except UnicodeError as error:",
    ),
    Mutation(
        "the reason for a JPEG that cannot be decoded",
        "preprocess/images/decode.py",
        "except (ValueError, RuntimeError, MemoryError) as error:",
        "except MemoryError as error:",
    ),
)
def fuzzed_images(ground: Workspace) -> str:
    return _summary(fuzzed(ground, ("image",), 10_000 if ground.full else 500))


@drill(
    "fuzzed files",
    "1,000 spoilt annotation, manifest, recipe, checkpoint, zip, parquet, idx and shard files each: read or refused in "
    "one sentence; no crash, no hang, nothing executed, memory below 1 GiB",
    Mutation(
        "the limit of a list's lines",
        "preprocess/sources/celeba_lists.py",
        "if len(line) > _MAX_LINE:",
        "if False:",
    ),
    Mutation(
        "the sentence for whatever YAML's reader raises",
        "pipeline/config/schema.py",
        "except (yaml.YAMLError, UnicodeDecodeError, RecursionError, ValueError) as error:",
        "except yaml.YAMLError as error:",
    ),
    Mutation(
        "the sentence for whatever torch's reader raises",
        "pipeline/checkpoint/file.py",
        "except Exception as error:  # torch's reader raises nearly anything on hostile bytes",
        "except EOFError as error:",
    ),
    Mutation(
        "the reason for a damaged zip member",
        "preprocess/sources/archives.py",
        "except zlib.error as error:",
        "except UnicodeError as error:",
    ),
    Mutation(
        "the sentence for a damaged parquet file",
        "preprocess/sources/celeba_parquet.py",
        "except Exception as error:  # pyarrow raises nearly anything on hostile files",
        "except UnicodeError as error:",
    ),
    Mutation(
        "the comparison of an idx file's length with its shape",
        "preprocess/sources/mnist.py",
        "return content if len(content) == size > 0 else None",
        "return content",
    ),
    Mutation(
        "the sentence for damaged annotations in a shard",
        "preprocess/shards/reader.py",
        "except (ValueError, RecursionError) as error:",
        "except RecursionError as error:",
    ),
    Mutation(
        "the sentence for a damaged member of a shard",
        "pipeline/data/shard_reader.py",
        '    except TarDamage as error:\n        raise LoaderError(f"{where} is damaged: {error}") from None\n'
        "    except (OSError, ValueError) as error:",
        "    except OSError as error:",
    ),
)
def fuzzed_files(ground: Workspace) -> str:
    if not ground.full:
        return _summary(fuzzed(ground, KINDS, 120))
    return _summary({kind: result for kind in KINDS for kind, result in fuzzed(ground, (kind,), 1000).items()})
