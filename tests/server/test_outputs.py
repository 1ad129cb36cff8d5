"""A published file is whole; names come from ids alone; what nobody owns can be found."""

import errno
import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from stubs import ended, request_for, stub_service, wait_warm

from hyvideo_rt.server.jobs import Fault, Job, Output, is_job_id, new_job_id
from hyvideo_rt.server.outputs import Outputs
from hyvideo_rt.server.store import JobStore


@given(
    st.text(max_size=60) | st.from_regex(r"video_[0-9a-f]{30,34}\n?") | st.sampled_from(["../x", "a/b", ""])
)
def test_only_our_own_ids_are_ids(text: str) -> None:
    ours = len(text) == 38 and text.startswith("video_") and set(text[6:]) <= set("0123456789abcdef")
    assert is_job_id(text) is ours


def test_new_ids_are_ids() -> None:
    ids = {new_job_id() for _ in range(100)}
    assert len(ids) == 100
    assert all(map(is_job_id, ids))


def test_no_other_name_reaches_the_disk(tmp_path: Path) -> None:
    outputs = Outputs(tmp_path / "videos")
    for name in ("../../etc/passwd", "video_", "video_" + "a" * 32 + "/..", "*"):
        for act in (outputs.video, outputs.delete, outputs.new_partial):
            with pytest.raises(AssertionError):
                act(name)


def test_publish_moves_and_describes(tmp_path: Path) -> None:
    outputs, job_id = Outputs(tmp_path), new_job_id()
    partial, final = outputs.new_partial(job_id), outputs.video(job_id)
    partial.write_bytes(b"film")
    output = outputs.publish(partial, final, {"write": 1.0})
    assert (final.read_bytes(), partial.exists()) == (b"film", False)
    assert (output.size_bytes, output.sha256) == (4, hashlib.sha256(b"film").hexdigest())
    assert list(outputs.owners()) == [job_id]
    outputs.delete(job_id)
    assert list(outputs.owners()) == []


def test_a_reader_never_sees_half_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Synced before it has its name, and if that fails it never gets it."""
    outputs, job_id = Outputs(tmp_path), new_job_id()
    partial, final = outputs.new_partial(job_id), outputs.video(job_id)
    partial.write_bytes(b"film")
    seen: list[tuple[str, bool]] = []

    def sync(path: Path) -> None:
        seen.append((path.name, final.exists()))
        if len(seen) == 1:
            raise OSError(errno.EIO, "the disk is gone")

    monkeypatch.setattr("hyvideo_rt.server.outputs._sync", sync)
    with pytest.raises(OSError, match="the disk is gone"):
        outputs.publish(partial, final, {})
    assert not final.exists()
    outputs.publish(partial, final, {})
    assert seen[1:] == [(partial.name, False), (tmp_path.name, True)], "the file, then its folder"


def test_a_start_clears_what_dead_workers_left(tmp_path: Path) -> None:
    outputs = Outputs(tmp_path)
    outputs.new_partial(new_job_id()).write_bytes(b"half a film")
    Outputs(tmp_path)
    assert list((tmp_path / "partial").iterdir()) == []


def test_the_sweep_deletes_orphans_and_nothing_else(tmp_path: Path) -> None:
    with stub_service(tmp_path) as service:
        orphan = new_job_id()
        service.outputs.video(orphan).write_bytes(b"nobody's")
        service.outputs.file(orphan, "thumbnail").write_bytes(b"nobody's")
        foreign = {"notes.txt", f"{orphan}.mp4.kept", f"{orphan}.txt", f"{orphan}mp4", "video.mp4"}
        for name in foreign:
            (service.outputs.root / name).write_text("an operator's")
        service.outputs.video(new_job_id()).mkdir()
        service.desk.sweep()
        assert {path.name for path in service.outputs.root.iterdir() if path.is_file()} == foreign


ENDS: dict[str, Callable[[JobStore, Job], object]] = {
    "queued": lambda store, job: store.requeue(job, refund=False),
    "completed": lambda store, job: store.complete(job, Output(9, "ab", {}), 1e12),
    "failed": lambda store, job: store.fail(job, Fault("worker_lost", "twice"), 1e12),
    "cancelled": lambda store, job: store.cancel(job.id, 1e12),
}


@pytest.mark.parametrize("end", ENDS)
def test_a_failed_or_cancelled_video_keeps_no_file(tmp_path: Path, end: str) -> None:
    """It has one if the server was killed when the file was in its place and the row not completed yet."""
    with stub_service(tmp_path, "dies") as service:
        service.store.create(request_for(), 1.0, 1.0, lambda load: None, None)
        job = service.store.claim(lambda queued: queued[0], 1.0, 2.0)
        assert job
        service.outputs.video(job.id).write_bytes(b"published")
        ENDS[end](service.store, job)
        service.desk.sweep()
        assert service.outputs.video(job.id).exists() is (end in ("queued", "completed"))


def test_videos_outlive_their_retention_by_one_sweep(tmp_path: Path) -> None:
    with stub_service(tmp_path, retention_s=1000) as service:
        wait_warm(service)
        job_id = service.submit(request_for(), None)[0].id
        finished_at = ended(service, job_id).finished_at or 0.0
        waiting = service.store.create(request_for(), 1.0, 1.0, lambda load: None, None)[0].id
        for age, kept in ((999.0, True), (1001.0, False)):
            service.desk.clock = lambda age=age: finished_at + age  # type: ignore[misc]
            service.desk.sweep()
            assert (service.store.get(job_id) is not None) is kept
            assert service.outputs.video(job_id).exists() is kept
        assert service.store.get(waiting), "old, but not finished"
