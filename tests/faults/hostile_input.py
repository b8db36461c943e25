"""Files made to do harm: refused with the reason, nothing executed, written elsewhere or allocated for them."""

from __future__ import annotations

import json
import shutil

from tests.faults.damaged_shards import one_sentence
from tests.faults.drill import Mutation, Workspace, drill
from tests.pipeline.launching import launch_words

MEMORY, SECONDS = 1024, 30  # MiB with torch, which takes half of it; for one file


def refused(ground: Workspace, group: str) -> str:
    """Has each file of a group read in a process of its own, and asserts that it is refused for the right reason."""
    room = ground.folder / group
    done = ground.run("python", "-m", "tests.faults.hostile", group, room, timeout=600)
    assert done.returncode == 0, f"the reading process died ({done.returncode}): {done.stderr[-1500:]}"
    canaries = [path for folder in (ground.folder, ground.code) for path in folder.rglob("canary*")]
    assert not canaries, f"a canary was made: {canaries}"
    said = json.loads(done.stdout)
    for each in said:
        assert not each["verdict"], f"{each['case']}: {each['verdict']}"
        assert each["peak"] < MEMORY, f"{each['case']}: {each['peak']} MiB"
        assert each["seconds"] < SECONDS, f"{each['case']}: {each['seconds']:.0f} s"
    return f"{len(said)} of {len(said)} refused with the reason, peak {said[-1]['peak']} MiB with torch, no canary"


@drill(
    "hostile checkpoints and recipes",
    "pickled calls, allocation bombs, strange configurations, YAML tags and aliases: refused with the reason; "
    "no canary; memory below 1 GiB",
    Mutation(
        "the look at what a pickle asks for",
        "pipeline/checkpoint/untrusted.py",
        'if code.name in {"STACK_GLOBAL", "INST"} or (code.name == "GLOBAL" and not _PLAIN.fullmatch(str(argument))):',
        "if False:",
    ),
    Mutation(
        "the refusal of compressed archives",
        "pipeline/checkpoint/untrusted.py",
        "if any(member.compress_type != zipfile.ZIP_STORED for member in members):",
        "if False:",
    ),
    Mutation(
        "the comparison of tensors with their file",
        "pipeline/checkpoint/untrusted.py",
        "if claimed > path.stat().st_size:",
        "if False:",
    ),
    Mutation(
        "the comparison of shapes without memory",
        "pipeline/checkpoint/file.py",
        'with torch.device("meta"):',
        'with torch.device("cpu"):',
    ),
    Mutation(
        "a loader of YAML that makes plain values only",
        "pipeline/config/schema.py",
        "class _PlainLoader(yaml.SafeLoader):",
        "class _PlainLoader(yaml.UnsafeLoader):",
    ),
    Mutation(
        "the refusal of YAML's aliases",
        "pipeline/config/schema.py",
        "if self.check_event(yaml.AliasEvent):",
        "if False:",
    ),
)
def hostile_checkpoints(ground: Workspace) -> str:
    return refused(ground, "checkpoints")


@drill(
    "hostile sets of shards",
    "pickles, links, `../`, holes and compression in shards, names and counts in manifests: refused with the reason; "
    "no canary; memory below 1 GiB",
    Mutation(
        "the refusal of members that no shard has",
        "preprocess/shards/tar.py",
        'if not name.endswith(suffixes) or "/" in name or "\\\\" in name:',
        "if False:",
    ),
    Mutation(
        "the refusal of links and other special members",
        "preprocess/shards/tar.py",
        "if header[156:157] != _REGULAR:",
        "if False:",
    ),
    Mutation(
        "the look at the names of mapped records",
        "preprocess/shards/tar.py",
        "if not np.strings.endswith(names, suffix.encode()).all():",
        "if False:",
    ),
    Mutation(
        "that a shard's file lies in its folder",
        "preprocess/shards/verify.py",
        "if path.is_symlink() and not path.resolve().is_relative_to(folder.resolve()):",
        "if False:",
    ),
    Mutation(
        "that a manifest names plain files",
        "preprocess/shards/manifest.py",
        'if not name or name in {".", ".."} or name != Path(name).name or "\\\\" in name or "\\0" in name:',
        "if False:",
    ),
    Mutation(
        "that a manifest's counts fit its bytes",
        "preprocess/shards/manifest.py",
        "if not possible:",
        "if False:",
    ),
    Mutation(
        "the sentence for nesting without end in a manifest",
        "preprocess/shards/manifest.py",
        "except (ValueError, RecursionError) as error:",
        "except ValueError as error:",
    ),
)
def hostile_sets(ground: Workspace) -> str:
    return refused(ground, "sets")


@drill(
    "hostile images and archives",
    "20,000 x 20,000 PNG, zip bombs, `../` and links in zip, places in parquet, endless scans: refused with the "
    "reason; no canary; memory below 1 GiB",
    Mutation(
        "the limit of pixels",
        "preprocess/images/decode.py",
        "if width * height > limit:",
        "if False:",
    ),
    Mutation(
        "the limit of a JPEG's scans",
        "preprocess/images/decode.py",
        "if data.count(_SCAN) > MAX_SCANS:",
        "if False:",
    ),
    Mutation(
        "the refusal of names that leave an archive, and of links",
        "preprocess/sources/archives.py",
        "if reason := _why_strange(info):",
        'if reason := "":',
    ),
    Mutation(
        "the limit of a member's size",
        "preprocess/sources/archives.py",
        "if max(stored, size) > MAX_FILE_BYTES:",
        "if False:",
    ),
    Mutation(
        "the limit of what a member unpacks to",
        "preprocess/sources/archives.py",
        "decompress(data, size + 1)",
        "decompress(data)",
    ),
    Mutation(
        "the limit of an annotation list's size",
        "preprocess/sources/archives.py",
        "if size > MAX_LIST_BYTES:",
        "if False:",
    ),
    Mutation(
        "what counts as a number in a list",
        "preprocess/sources/celeba_lists.py",
        "return text.isdecimal() and len(text) <= _MAX_DIGITS",
        "return text.isdigit()",
    ),
)
def hostile_images(ground: Workspace) -> str:
    return refused(ground, "sources")


@drill(
    "a command in an address",
    "`pipe:` in --data is refused without --allow-pipe; no canary",
    Mutation(
        "the question for --allow-pipe",
        "pipeline/data/shard_reader.py",
        "if not allow_pipe:",
        "if False:",
    ),
)
def command_in_an_address(ground: Workspace) -> str:
    canary = ground.folder / "canary"
    address = f"pipe:touch '{canary}'; cat '{ground.shards}'/{{}}"
    done = ground.run(*launch_words(ground.shards, ground.folder / "run", steps=1, data=address))
    assert not canary.exists(), "the command was run"
    assert done.returncode == 1, done.stderr
    one_sentence(done.stderr, "--allow-pipe")
    return "refused, and not run"


MARKUP = "<img/src=x/onerror=alert(1)>$\\frac{$</script>"


@drill(
    "markup in names",
    "an attribute called like HTML or TeX is shown as text in the report",
    Mutation(
        "the escaping of the report",
        "analysis/report/report.py",
        "autoescape=True",
        "autoescape=False",
    ),
    Mutation(
        "that names in charts are no formulas",
        "analysis/figures/charts.py",
        'matplotlib.rcParams["text.parse_math"] = False',
        'matplotlib.rcParams["text.parse_math"] = True',
    ),
)
def markup_in_names(ground: Workspace) -> str:
    tree = ground.folder / "tree"
    shutil.copytree(ground.faces, tree)
    attributes = tree / "list_attr_celeba.txt"
    lines = attributes.read_text().splitlines()
    names = [MARKUP if name == "Smiling" else name for name in lines[1].split()]
    assert MARKUP in names
    attributes.write_text("\n".join([lines[0], " ".join(names), *lines[2:]]) + "\n")
    shards, run, out = ground.folder / "shards", ground.folder / "run", ground.folder / "report"
    made = ground.run(*("preprocess", "celeba", "--source", tree, "--out", shards, "--size", 32, "--shard-size", 100))
    assert made.returncode == 0, made.stderr
    trained = ground.run(*launch_words(shards, run, steps=2))
    assert trained.returncode == 0, trained.stderr
    reported = ground.run("analysis", "report", run / "ckpt.pt", "--quick", "--out", out)
    assert reported.returncode == 0, f"no report was made: {reported.stderr[-1500:]}"
    page = (out / "index.html").read_text()
    assert "<img/src=x" not in page, "the name of an attribute is markup in the report"
    assert "&lt;img/src=x" in page, "the attribute is not in the report"
    return "shown as text, in the page and in its charts"
