"""Data in S3, served by moto on loopback."""

import json
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
import s3fs
import torch
from moto.server import ThreadedMotoServer
from PIL import Image

from synth2_lightning.cli import main
from synth2_lightning.datamodules.real import RealDataModule
from synth2_lightning.interfaces import ImageTextSource
from synth2_lightning.io.locations import resolve
from synth2_lightning.sources.coco import CocoSource
from synth2_lightning.sources.webdataset import TarSource

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]  # the packages of AWS warn
HERE = Path(__file__).parent
FIT = HERE.parent / "faults" / "fit.yaml"
SHARDS = Path(str(files("synth2_lightning"))) / "scenes" / "shards"
SECRET = "geheim-3f9c21"


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    moto = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    moto.start()
    host, port = moto.get_host_and_port()
    yield f"http://{host}:{port}"
    moto.stop()


@pytest.fixture(autouse=True)
def bucket(server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[s3fs.S3FileSystem]:
    variables = {
        "AWS_ENDPOINT_URL": server, "AWS_ACCESS_KEY_ID": SECRET, "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_EC2_METADATA_DISABLED": "true", "SYNTH2_CACHE": str(tmp_path / "cache"),
    }  # fmt: skip
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    s3fs.S3FileSystem.clear_instance_cache()
    system = s3fs.S3FileSystem()
    system.mkdirs("bucket", exist_ok=True)
    yield system
    system.rm("bucket", recursive=True)
    s3fs.S3FileSystem.clear_instance_cache()


def fit(folder: Path, shards: str, monkeypatch: pytest.MonkeyPatch) -> str:
    folder.mkdir()
    monkeypatch.chdir(folder)
    where = f"--data.init_args.synthetic.init_args.shards={shards}"
    main(["fit", "--config", str(FIT), "--trust=watched", where, "--trainer.max_steps=6"])
    return (folder / "batches-0.jsonl").read_text()


@pytest.mark.timeout(1200)
def test_a_fit_from_s3_has_the_losses_of_one_from_disk(
    bucket: s3fs.S3FileSystem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    bucket.put(str(SHARDS), "bucket/sets/scenes", recursive=True)
    local = fit(tmp_path / "local", str(SHARDS), monkeypatch)
    assert fit(tmp_path / "remote", "s3://bucket/sets/scenes", monkeypatch) == local
    assert len(local.splitlines()) == 6
    output = "".join(capfd.readouterr())
    assert re.search(r"s3://bucket/sets/scenes .*\b2 files", output)
    written = [path.read_bytes() for path in (tmp_path / "remote").rglob("*") if path.is_file()]
    assert SECRET not in output
    assert not any(SECRET.encode() in content for content in written)


def assert_same(source: ImageTextSource, expected: ImageTextSource) -> None:
    source.load()
    expected.load()
    assert len(source) == len(expected) == 3
    for index in range(3):
        assert source.key(index) == expected.key(index)
        assert source.captions(index) == expected.captions(index)
        assert source.image(index).tobytes() == expected.image(index).tobytes()


def test_photos_from_s3_are_those_from_disk(bucket: s3fs.S3FileSystem, tmp_path: Path) -> None:
    images = tmp_path / "images"
    images.mkdir()
    for number in range(3):
        Image.new("RGB", (8, 8), (80 * number, 0, 0)).save(images / f"{number}.png")
        (images / f"{number}.txt").write_text(f"a {number}")
    coco = {
        "images": [{"id": number, "file_name": f"{number}.png"} for number in range(3)],
        "annotations": [{"image_id": number, "caption": f"the {number}"} for number in range(3)],
    }
    (tmp_path / "captions.json").write_text(json.dumps(coco))
    (tmp_path / "tars").mkdir()
    for number in range(3):
        with tarfile.open(tmp_path / "tars" / f"{number}.tar", "w") as tar:
            for suffix in ("png", "txt"):
                tar.add(images / f"{number}.{suffix}", f"{number}.{suffix}")
    for name in ("images", "tars"):
        bucket.put(str(tmp_path / name), f"bucket/{name}", recursive=True)
    bucket.put(str(tmp_path / "captions.json"), "bucket/captions.json")
    assert_same(
        CocoSource("s3://bucket/captions.json", "s3://bucket/images"),
        CocoSource(str(tmp_path / "captions.json"), str(images)),
    )
    shutil.rmtree(tmp_path / "cache" / "remote")
    assert_same(TarSource("s3://bucket/tars/*.tar"), TarSource(str(tmp_path / "tars" / "*.tar")))
    assert not (tmp_path / "cache" / "remote").exists()  # tars are not copied


def test_workers_read_tars_in_s3(bucket: s3fs.S3FileSystem, tmp_path: Path) -> None:
    batches = []
    with tarfile.open(tmp_path / "0.tar", "w") as tar:
        for number in range(8):
            Image.new("RGB", (8, 8), (30 * number, 0, 0)).save(tmp_path / f"{number}.png")
            (tmp_path / f"{number}.txt").write_text(f"a {number}")
            for suffix in ("png", "txt"):
                tar.add(tmp_path / f"{number}.{suffix}", f"{number}.{suffix}")
    bucket.put(str(tmp_path / "0.tar"), "bucket/tars/0.tar")
    for location in (str(tmp_path / "0.tar"), "s3://bucket/tars/0.tar"):
        data = RealDataModule(TarSource(location), batch_size=4, image_size=8, num_workers=2)
        data.setup("fit")
        batches.append(list(data.train_dataloader()))
    for local, remote in zip(*batches, strict=True):
        assert remote.keys == local.keys
        assert torch.equal(remote.image.values, local.image.values)


def test_a_new_object_is_noticed(bucket: s3fs.S3FileSystem) -> None:
    bucket.pipe("bucket/words.txt", b"a fox")
    old = resolve("s3://bucket/words.txt", "words")
    bucket.pipe("bucket/words.txt", b"a dog")
    assert resolve("s3://bucket/words.txt", "words").read_text() == "a dog"
    assert old.read_text() == "a fox"


def test_sigkill_leaves_nothing_that_counts_as_complete(bucket: s3fs.S3FileSystem, tmp_path: Path) -> None:
    content = np.random.default_rng(0).bytes(60_000_000)
    bucket.pipe("bucket/big/large.bin", content)
    bucket.pipe("bucket/big/small.bin", b"x")
    words = "from synth2_lightning.io.locations import resolve; resolve('s3://bucket/big', 'set')"
    process = subprocess.Popen([sys.executable, "-c", words])
    cache = tmp_path / "cache" / "remote"
    while not any(path.stat().st_size for path in cache.glob("*.draft/0.half")):
        assert process.poll() is None, "it ended before it could be killed"
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert [path.suffix for path in cache.iterdir() if path.is_dir()] == [".draft"]
    path = resolve("s3://bucket/big", "set")
    assert (path / "large.bin").read_bytes() == content
    assert (path / "small.bin").read_bytes() == b"x"
    shutil.rmtree(cache)


@pytest.mark.parametrize("address", ["s3://no-such-bucket/set", "s3://bucket/no-such-set", "s3://bucket"])
def test_a_missing_file_is_reported(address: str, server: str) -> None:
    with pytest.raises(FileNotFoundError, match=f"shards.*'{address}'.*AWS_ENDPOINT_URL={server}"):
        resolve(address, "shards")


def test_missing_credentials_are_reported(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    s3fs.S3FileSystem.clear_instance_cache()
    with pytest.raises(OSError, match=r"NoCredentialsError.*AWS_PROFILE.*FSSPEC_S3="):
        resolve("s3://bucket/set", "shards")


def test_an_unreachable_server_is_reported_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    s3fs.S3FileSystem.clear_instance_cache()
    before = time.monotonic()
    with pytest.raises(OSError, match=r"EndpointConnectionError.*AWS_ENDPOINT_URL=http://127"):
        resolve("s3://bucket/set", "shards")
    assert time.monotonic() - before < 60
