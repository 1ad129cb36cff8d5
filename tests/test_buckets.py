import pytest

from hyvideo_rt.buckets import OFFICIAL_PRESETS, PRESETS, Bucket
from hyvideo_rt.errors import InvalidRequest

# Latent grid after the patch and image tokens, from the shape arithmetic of the published model.
OFFICIAL = {
    "544x960x129": ((33, 34, 60), 67_320),
    "960x544x129": ((33, 60, 34), 67_320),
    "624x832x129": ((33, 39, 52), 66_924),
    "832x624x129": ((33, 52, 39), 66_924),
    "720x720x129": ((33, 45, 45), 66_825),
    "720x1280x129": ((33, 45, 80), 118_800),
    "1280x720x129": ((33, 80, 45), 118_800),
    "832x1104x129": ((33, 52, 69), 118_404),
    "1104x832x129": ((33, 69, 52), 118_404),
    "960x960x129": ((33, 60, 60), 118_800),
}


def test_the_ten_official_sizes() -> None:
    buckets = OFFICIAL_PRESETS.values()
    assert {str(b): (b.grid, b.num_tokens) for b in buckets} == OFFICIAL


def test_parse_takes_sizes_and_preset_names() -> None:
    assert Bucket.parse("720x1280x129") == Bucket(720, 1280, 129) == Bucket.parse("720p-landscape")
    for name, bucket in PRESETS.items():
        assert Bucket.parse(name) == Bucket.parse(str(bucket)) == bucket


@pytest.mark.parametrize(
    ("size", "nearest"),
    [
        ((719, 1280, 129), "720x1280x129"),
        ((720, 1288, 129), "720x1296x129"),
        ((720, 1280, 128), "720x1280x129"),
        ((720, 1280, 126), "720x1280x125"),
        ((-5, 0, 0), "16x16x1"),
        ((8, 7, 3), "16x16x5"),
    ],
)
def test_invalid_sizes_name_the_nearest_valid_one(size: tuple[int, int, int], nearest: str) -> None:
    with pytest.raises(InvalidRequest, match=f"nearest valid size: {nearest}"):
        Bucket(*size)


@pytest.mark.parametrize("text", ["", "720", "720x1280", "720p", "axbxc", "720x1280x129x1", "-720x1280x129"])
def test_what_is_no_size_is_refused_with_the_presets(text: str) -> None:
    with pytest.raises(InvalidRequest, match="720p-landscape"):
        Bucket.parse(text)
