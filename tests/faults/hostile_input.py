"""Files made to do harm: refused with the reason, nothing executed, written elsewhere or allocated for them."""

from __future__ import annotations

import json
import shutil

from tests.conftest import REPOSITORY
from tests.faults.fault import Mutation, Workspace, fault, one_sentence
from tests.pipeline.launching import launch_words

MEMORY, SECONDS = 1024, 30  # MiB with torch, which takes half of it; for one file


def refused(workspace: Workspace, group: str) -> str:
    """Has each file of a group read in a process of its own, and asserts that it is refused for the right reason."""
    room = workspace.folder / group
    done = workspace.run("python", "-m", "tests.faults.hostile", group, room, timeout=600)
    assert done.returncode == 0, f"the reading process died ({done.returncode}): {done.stderr[-1500:]}"
    canaries = [path for folder in (workspace.folder, REPOSITORY) for path in folder.rglob("canary*")]
    assert not canaries, f"a canary was made: {canaries}"
    said = json.loads(done.stdout)
    for each in said:
        assert not each["problem"], f"{each['case']}: {each['problem']}"
        assert each["peak"] < MEMORY, f"{each['case']}: {each['peak']} MiB"
        assert each["seconds"] < SECONDS, f"{each['case']}: {each['seconds']:.0f} s"
    return f"{len(said)} of {len(said)} refused with the reason, peak {said[-1]['peak']} MiB with torch, no canary"


@fault(
    "hostile checkpoints and recipes",
    "pickled calls, allocation bombs, strange configurations, YAML tags and aliases: refused with the reason; "
    "no canary; memory below 1 GiB",
    Mutation("check of a pickle's contents", "pipeline.checkpoint.untrusted:_refuse_unknown_types", "returns"),
    Mutation("refusal of compressed archives", "pipeline.checkpoint.untrusted:check_archive", "returns"),
    Mutation("comparison of tensors with their file", "pipeline.checkpoint.untrusted:check_tensors", "returns"),
    Mutation(
        "comparison of shapes without memory",
        "pipeline.checkpoint.file:torch",
        "is_set_to",
        "type('Proxy', (), {'__getattr__': lambda self, name: getattr(original, name), 'device': "
        "staticmethod(lambda kind: original.device('cpu'))})()",
    ),
    Mutation(
        "YAML loader for plain values only", "pipeline.config.load:_StrictLoader", "is_set_to", "yaml.UnsafeLoader"
    ),
    Mutation(
        "refusal of YAML aliases",
        "pipeline.config.load:_StrictLoader.compose_node",
        "is_set_to",
        "yaml.SafeLoader.compose_node",
    ),
)
def hostile_checkpoints(workspace: Workspace) -> str:
    return refused(workspace, "checkpoints")


@fault(
    "hostile sets of shards",
    "pickles, links, `../`, holes and compression in shards, names and counts in manifests: refused with the reason; "
    "no canary; memory below 1 GiB",
    Mutation("refusal of unknown members", "preprocess.shards.tar:_is_member_name", "returns", True),
    Mutation(
        "refusal of links and other special members",
        "preprocess.shards.tar:_REGULAR",
        "is_set_to",
        "type('AnyKind', (bytes,), {'__ne__': lambda self, other: False})(original)",
    ),
    Mutation("check of the names of mapped records", "preprocess.shards.tar:_all_end_with", "returns", True),
    Mutation(
        "check that a shard's file is in its folder",
        "preprocess.shards.verify:damage_reason",
        "is_set_to",
        "lambda folder, shard, content=True: '' if (folder / shard.file).is_symlink() else "
        "original(folder, shard, content)",
    ),
    Mutation("check for plain file names in a manifest", "preprocess.shards.manifest:_is_plain", "returns", True),
    Mutation("check that a manifest's counts fit its bytes", "preprocess.shards.manifest:_can_hold", "returns", True),
    Mutation("message for endless nesting in a manifest", "preprocess.shards.manifest:Manifest.parse", "shows_causes"),
)
def hostile_sets(workspace: Workspace) -> str:
    return refused(workspace, "sets")


@fault(
    "hostile images and archives",
    "20,000 x 20,000 PNG, zip bombs, `../` and links in zip, places in parquet, endless scans: refused with the "
    "reason; no canary; memory below 1 GiB",
    Mutation("limit of pixels", "preprocess.images.decode:_refuse_bomb", "returns"),
    Mutation("limit of a JPEG's scans", "preprocess.images.decode:MAX_SCANS", "is_set_to", "1 << 60"),
    Mutation(
        "refusal of links and of names that leave an archive",
        "preprocess.containers.container:_unsafe_reason",
        "returns",
        "",
    ),
    Mutation("limit of a member's size", "preprocess.containers.zip_archive:MAX_FILE_BYTES", "is_set_to", "1 << 60"),
    Mutation(
        "limit of a member's unpacked size",
        "preprocess.containers.zip_archive:zlib",
        "is_set_to",
        "type('Proxy', (), {'__getattr__': lambda self, name: getattr(original, name), "
        "'decompressobj': staticmethod(lambda bits: type('Unlimited', (), {'decompress': "
        "staticmethod(lambda data, size: original.decompress(data, bits))})())})()",
    ),
    Mutation("limit of an annotation list's size", "preprocess.containers.container:refuse_long_list", "returns"),
    Mutation(
        "check of numbers in a list",
        "preprocess.sources.celeba_lists:_is_number",
        "is_set_to",
        "lambda text: text.isdigit()",
    ),
)
def hostile_images(workspace: Workspace) -> str:
    return refused(workspace, "sources")


@fault(
    "a command in an address",
    "`pipe:` in --data is refused without --allow-pipe; no canary",
    Mutation(
        "refusal of programs without --allow-pipe",
        "pipeline.data.shard_reader:open_source",
        "is_set_to",
        "lambda path, allow_pipe=False: original(path, True)",
    ),
)
def command_in_an_address(workspace: Workspace) -> str:
    canary = workspace.folder / "canary"
    address = f"pipe:touch '{canary}'; cat '{workspace.shards}'/{{}}"
    done = workspace.run(*launch_words(workspace.shards, workspace.folder / "run", steps=1, data=address))
    assert not canary.exists(), "the command was run"
    assert done.returncode == 1, done.stderr
    one_sentence(done.stderr, "--allow-pipe")
    return "refused, and not run"


MARKUP = "<img/src=x/onerror=alert(1)>$\\frac{$</script>"


@fault(
    "markup in names",
    "an attribute named like HTML or TeX is shown as text in the page and its charts",
    Mutation(
        "escaping in the report",
        "analysis.report.page:jinja2",
        "is_set_to",
        "type('Proxy', (), {'__getattr__': lambda self, name: getattr(original, name), "
        "'Environment': staticmethod(lambda **options: original.Environment(**{**options, "
        "'autoescape': False}))})()",
    ),
    Mutation("names in charts as plain text", "matplotlib.text:Text.set_parse_math", "returns"),
)
def markup_in_names(workspace: Workspace) -> str:
    tree = workspace.folder / "tree"
    shutil.copytree(workspace.faces, tree)
    attributes = tree / "list_attr_celeba.txt"
    lines = attributes.read_text().splitlines()
    names = [MARKUP if name == "Smiling" else name for name in lines[1].split()]
    assert MARKUP in names
    attributes.write_text("\n".join([lines[0], " ".join(names), *lines[2:]]) + "\n")
    shards, run, out = workspace.folder / "shards", workspace.folder / "run", workspace.folder / "report"
    made = workspace.run(
        *("preprocess", "celeba", "--source", tree, "--out", shards, "--size", 32, "--shard-size", 100)
    )
    assert made.returncode == 0, made.stderr
    trained = workspace.run(*launch_words(shards, run, steps=2))
    assert trained.returncode == 0, trained.stderr
    reported = workspace.run("analysis", "report", run / "ckpt.pt", "--samples", 40, "--out", out)
    assert reported.returncode == 0, f"no report was made: {reported.stderr[-1500:]}"
    page = (out / "index.html").read_text()
    assert "<img/src=x" not in page, "the name of an attribute is markup in the report"
    assert "&lt;img/src=x" in page, "the attribute is not in the report"
    return "shown as text, in the page and in its charts"
