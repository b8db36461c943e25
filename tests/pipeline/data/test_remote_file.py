"""Files behind an address: whole in spite of broken connections, and errors in words."""

from __future__ import annotations

import threading
import time
import urllib.request
from email.message import Message
from urllib.error import HTTPError

import numpy as np
import pytest
import torch

from pipeline.data import batch as batch_module
from pipeline.data import remote_file
from pipeline.data.batch import LoaderError, StoppedWaiting, prefetched
from pipeline.data.remote_file import RemoteFile
from pipeline.data.sampler import GlobalBatchSampler
from pipeline.data.shard_reader import open_shard_set, open_source
from pipeline.data.streaming import StreamingLoader
from pipeline.distributed.signals import SIGNALS
from preprocess.shards.reader import ShardSet
from tests.pipeline.data.http_server import Network, served

CONTENT = np.random.default_rng(0).bytes(3_000_000)


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch):
    monkeypatch.setattr(remote_file, "RETRY_SECONDS", (0.0, 0.01, 0.01))


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "file").write_bytes(CONTENT)
    return tmp_path


def read(address: str, step: int = 100_001) -> bytes:
    with RemoteFile(address, "file") as file:
        return b"".join(iter(lambda: file.read(step), b""))


@pytest.mark.parametrize("ranges", [True, False])
def test_dropped_connections_continue_at_the_byte_where_they_broke(folder, ranges):
    network = Network(drop_every=3 if ranges else 2, ranges=ranges)
    with served(folder, network) as address:
        assert read(address) == CONTENT
        assert read(address) == CONTENT
        assert read(address) == CONTENT
    assert network.requests > 3


def test_a_stalled_connection_is_opened_again(folder, monkeypatch):
    monkeypatch.setattr(remote_file, "TIMEOUT_SECONDS", 0.3)
    network = Network()
    with served(folder, network) as address, RemoteFile(address, "file") as file:
        first = file.read(500_000)
        network.stalled = True
        threading.Timer(0.5, lambda: setattr(network, "stalled", False)).start()
        assert first + file.read() == CONTENT


@pytest.mark.parametrize(
    ("network", "words", "requests"),
    [
        (Network(status=404), "HTTP 404 Not Found; check the address", 1),
        (Network(status=503), "4 times: the server answered HTTP 503", 4),
    ],
)
def test_the_servers_answer_is_in_the_message(folder, network, words, requests):
    with served(folder, network) as address, pytest.raises(LoaderError, match=words):
        read(address)
    assert network.requests == requests, "only answers that may change are asked for again"


def test_a_refused_connection_and_its_proxy_are_named(folder, monkeypatch):
    with pytest.raises(LoaderError, match=r"Connection refused$"):
        read("http://127.0.0.1:9")
    monkeypatch.setattr(urllib.request, "_opener", None)  # it keeps the proxies of its first use
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    with pytest.raises(LoaderError, match=r"Connection refused \(through the proxy of http_proxy\)"):
        read("http://example.invalid")


def test_a_web_page_is_not_called_a_damaged_manifest(tmp_path):
    (tmp_path / "manifest.json").write_text("<html>Please sign in</html>")
    with served(tmp_path, Network()) as address, pytest.raises(LoaderError, match="is a web page"):
        open_source(address, False)


def test_a_server_that_asks_for_time_gets_it(folder, monkeypatch, capsys):
    pauses = []
    monkeypatch.setattr(time, "sleep", pauses.append)
    file = RemoteFile.__new__(RemoteFile)
    file.name, file._position, file._failures = "file of http://host", 0, 0
    headers = Message()
    headers["Retry-After"] = "7"
    file._wait_or_give_up(HTTPError("http://host", 429, "Too Many Requests", headers, None))
    assert pauses == [7] and "HTTP 429 Too Many Requests; trying again in 7 s" in capsys.readouterr().err


def test_a_program_that_fails_is_named(folder):
    with pytest.raises(LoaderError, match=r"failed: `no-such-program file` is not a program"):
        read("pipe:no-such-program {}")
    with pytest.raises(LoaderError, match="exit code 3"):
        read("pipe:exit 3 {}")


def test_no_sample_is_lost_or_repeated_over_an_unreliable_network(face_shards):
    pixels = np.concatenate(ShardSet.open(face_shards).images("train"))
    with served(face_shards, Network(drop_every=3)) as address:
        source = open_source(address, False)
        sampler = GlobalBatchSampler(len(pixels), 32, 1, 0, 1)
        loader = StreamingLoader(source, 64, torch.device("cpu"), 0)
        seen = []
        for item in loader.batches(sampler, 0, sampler.batches_per_epoch, 2):
            assert (item.images.permute(0, 2, 3, 1).numpy() == pixels[item.indices.numpy()]).all()
            seen += item.indices.tolist()
    assert len(seen) == len(set(seen)) == sampler.batches_per_epoch * 32


@pytest.mark.parametrize("slashes", ["//", "/"])
def test_analysis_reads_the_addresses_that_training_reads(face_shards, tmp_path, monkeypatch, slashes):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    network = Network()
    with served(face_shards, network) as address:
        copy = open_shard_set(address.replace("//", slashes))
        before = network.requests
        assert open_shard_set(address.replace("//", slashes)).folder == copy.folder
    assert network.requests == before + 2, "the manifest alone"
    original = ShardSet.open(face_shards)
    assert copy.digest == original.digest
    copy.check_sizes()
    assert np.array_equal(np.concatenate(copy.images("train")), np.concatenate(original.images("train")))


def test_a_folder_is_opened_where_it_is(face_shards):
    assert open_shard_set(str(face_shards)).folder == face_shards


def test_a_request_to_stop_ends_the_wait_for_a_batch(monkeypatch):
    monkeypatch.setattr(batch_module, "POLL_SECONDS", 0.05)
    monkeypatch.setattr(batch_module, "STOP_SECONDS", 0.2)
    monkeypatch.setattr(batch_module, "JOIN_SECONDS", 0.1)
    never = threading.Event()

    def stalled():
        yield 1
        never.wait(30)
        yield 2

    items = prefetched(stalled(), 1)
    assert next(items) == 1
    monkeypatch.setattr(SIGNALS, "stop_requested", True)
    begin = time.perf_counter()
    with pytest.raises(StoppedWaiting):
        next(items)
    assert time.perf_counter() - begin < 2
    never.set()
