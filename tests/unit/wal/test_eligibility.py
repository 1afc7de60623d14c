"""File systems that other machines may write to."""

import pytest

from sidecar.database.wal.eligibility import is_network


@pytest.mark.parametrize("kind", ["nfs4", "cifs", "9p", "fuse.sshfs", "fuse.s3fs", "ceph"])
def test_network_file_systems_are_known(kind: str) -> None:
    assert is_network(kind)


@pytest.mark.parametrize("kind", ["ext4", "xfs", "btrfs", "tmpfs", "overlay", "zfs", "fuse.fuse-overlayfs", "virtiofs"])
def test_local_ones_are_not_refused(kind: str) -> None:
    assert not is_network(kind)
