"""What only a store in a directory can do, or suffer."""

import errno
import fcntl
import os
from pathlib import Path
from tempfile import TemporaryDirectory

import anyio
import pytest
from anyio import to_thread

from sidecar.errors import ConfigurationError, NoRoom, NotFound, PreconditionFailed, StoreMissing, StoreUnavailable
from sidecar.model import IfAbsent
from sidecar.storage.file import objects
from sidecar.storage.file.root import PRIVATE
from sidecar.storage.file.store import FileStore

pytestmark = pytest.mark.anyio

KEY = "app.db/20261120T145503.123Z.sqlite3.zst"


async def test_object_is_an_ordinary_file_under_its_key(tmp_path: Path) -> None:
    """Whoever has only `cp` and `zstd` finds it; what is ours lies in one hidden folder."""
    await FileStore(tmp_path / "store").put(KEY, b"data", metadata={"a": "b"})
    assert (tmp_path / "store" / KEY).read_bytes() == b"data"
    assert {path.name for path in (tmp_path / "store").iterdir()} == {PRIVATE, "app.db"}


async def test_file_put_there_by_hand_is_an_object(tmp_path: Path) -> None:
    """A restore point that was copied here from elsewhere has no metadata, and is one all the same."""
    (tmp_path / KEY).parent.mkdir()
    (tmp_path / KEY).write_bytes(b"data")
    blob = await FileStore(tmp_path).get(KEY)
    assert (bytes(blob.data), blob.info.metadata) == (b"data", {})
    assert [info.key for info in (await FileStore(tmp_path).list("")).objects] == [KEY]
    with pytest.raises(PreconditionFailed):
        await FileStore(tmp_path).put(KEY, b"other", condition=IfAbsent())


async def test_every_folder_on_the_way_to_an_object_is_synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder that was just made is in its parent only after the parent was synced (fsync(2))."""
    synced: list[Path] = []
    monkeypatch.setattr(objects, "sync", synced.append)
    store = FileStore(tmp_path / "store")
    await store.put(f"diverged/{KEY}", b"data")
    folders = [
        tmp_path / "store" / "diverged" / "app.db",
        tmp_path / "store" / "diverged",
        tmp_path / "store",
        tmp_path,
    ]
    assert [path for path in synced if PRIVATE not in path.parts] == folders
    assert synced[0].parent == tmp_path / "store" / PRIVATE / "incoming", "the data first"


async def test_missing_directory_is_empty_unless_its_parent_is_missing_too(tmp_path: Path) -> None:
    """A file system that is not mounted must not look like a store without restore points."""
    assert (await FileStore(tmp_path / "new").list("")).objects == ()
    with pytest.raises(StoreMissing):
        await FileStore(tmp_path / "not mounted" / "store").list("")
    with pytest.raises(NotFound):
        await FileStore(tmp_path / "new").head(KEY)


async def test_file_where_the_directory_should_be_is_a_configuration_error(tmp_path: Path) -> None:
    (tmp_path / "store").write_text("a file")
    with pytest.raises(ConfigurationError):
        await FileStore(tmp_path / "store").put(KEY, b"data")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux' /dev/full")
async def test_full_disk_is_no_room_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = FileStore(tmp_path)

    def full(file: int, *_: object) -> int:
        with open("/dev/full", "wb", buffering=0) as device:
            return device.write(b"x") or 0

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(NoRoom):
        async with store.upload(KEY, metadata={}) as upload:
            await upload.put_part(1, 0, b"data")
    assert list((tmp_path / PRIVATE / "incoming").iterdir()) == []
    assert (await store.list("")).objects == ()


async def test_folder_that_cannot_be_read_is_not_an_empty_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = FileStore(tmp_path)
    await store.put(KEY, b"data")

    def broken(*_: object) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "scandir", broken)
    with pytest.raises(StoreUnavailable):
        await store.list("app.db/")


async def test_writers_in_other_processes_are_waited_for(tmp_path: Path) -> None:
    """The conditional write looks and renames under a lock of the directory."""
    store = FileStore(tmp_path)
    await store.put("other", b"x")
    done: list[bool] = []

    async def write() -> None:
        await store.put(KEY, b"data", condition=IfAbsent())
        done.append(True)

    with (tmp_path / PRIVATE / "lock").open("a") as lock:
        await to_thread.run_sync(fcntl.flock, lock, fcntl.LOCK_EX)
        async with anyio.create_task_group() as group:
            group.start_soon(write)
            await anyio.sleep(0.1)
            assert done == []
            fcntl.flock(lock, fcntl.LOCK_UN)
    assert done == [True]


async def test_store_that_vanished_is_not_made_again(tmp_path: Path) -> None:
    """Moved away, or unmounted: reads and writes fail, nothing is made there; when it is back all goes on."""
    root = tmp_path / "disk" / "store"
    root.parent.mkdir()
    store = FileStore(root)
    await store.put(KEY, b"data")
    root.rename(tmp_path / "elsewhere")
    await _unusable(store, "is gone")
    assert list(root.parent.iterdir()) == []
    root.parent.rmdir()
    await _unusable(store, "is gone")
    assert not root.parent.exists()
    root.parent.mkdir()
    (tmp_path / "elsewhere").rename(root)
    await store.put("another", b"data")
    assert (await store.head(KEY)).size == 4


async def test_another_directory_in_its_place_is_not_used(tmp_path: Path) -> None:
    """What a mount point shows when its disk is not mounted, or another one: empty, or another store."""
    root = tmp_path / "store"
    store = FileStore(root)
    await store.put(KEY, b"data")
    root.rename(tmp_path / "elsewhere")
    root.mkdir()
    await _unusable(store, "is not the one that was there")
    assert list(root.iterdir()) == []
    await FileStore(root).put(KEY, b"another store's")
    await _unusable(store, "is not the one that was there")


async def test_processes_that_make_a_store_at_once_agree_on_which_it_is(tmp_path: Path) -> None:
    """And each of them sees the others' objects."""
    stores = [FileStore(tmp_path / "store") for _ in range(8)]
    async with anyio.create_task_group() as group:
        for number, store in enumerate(stores):
            group.start_soon(store.put, f"{number}", b"data")
    assert {len((await store.list("")).objects) for store in stores} == {8}


async def _unusable(store: FileStore, words: str) -> None:
    with pytest.raises(StoreMissing, match=words):
        await store.put("another", b"data")
    with pytest.raises(StoreMissing, match=words):
        await store.head(KEY)
    with pytest.raises(StoreMissing, match=words):
        await store.list("")
    with pytest.raises(StoreMissing, match=words):
        await store.tag(KEY, {"a": "b"})
    with pytest.raises(StoreMissing, match=words):
        async with store.upload("another", metadata={}):
            pass


async def test_reader_needs_no_right_to_what_is_private() -> None:
    """To restore, the objects are enough. Root, who may read everything, is somebody else for a moment."""
    with TemporaryDirectory() as directory:
        root = Path(directory, "store")
        await FileStore(root).put(KEY, b"data")
        for folder, mode in ((Path(directory), 0o755), (root / PRIVATE, 0)):
            folder.chmod(mode)
        before = os.geteuid()
        if before == 0:
            os.seteuid(65534)
        try:
            assert bytes((await FileStore(root).get(KEY)).data) == b"data"
        finally:
            os.seteuid(before)
            (root / PRIVATE).chmod(0o700)


async def test_upload_may_be_what_makes_the_store(tmp_path: Path) -> None:
    """With another one at the same time."""
    store = FileStore(tmp_path / "store")

    async def upload(key: str) -> None:
        async with store.upload(key, metadata={}) as upload:
            await upload.put_part(1, 0, b"data")
            await upload.complete()

    async with anyio.create_task_group() as group:
        for number in range(8):
            group.start_soon(upload, f"{number}")
    assert len((await store.list("")).objects) == 8


async def test_stale_file_handle_is_an_outage_that_is_retried_and_not_a_bug(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file server that was restarted answers ESTALE to everything, also to the removal of what was half written."""
    store = FileStore(tmp_path / "store")
    await store.put(KEY, b"data")

    def stale(*_: object, **__: object) -> None:
        raise OSError(errno.ESTALE, "Stale file handle")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", stale)
        patch.setattr(Path, "unlink", stale)
        with pytest.raises(StoreUnavailable):
            await store.put("other", b"data")
        with pytest.raises(StoreUnavailable):
            async with store.upload("other", metadata={}) as upload:
                patch.setattr(Path, "open", stale)
                await upload.put_part(1, 0, b"data")
