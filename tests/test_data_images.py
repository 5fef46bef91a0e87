"""Folders and tars of pictures: what is listed, what is skipped and why, and what the pixels are."""

import io
import os
import tarfile
import zlib

import numpy as np
import pytest
from PIL import Image

from nnjax.data import DataError, files, image_folder, image_names, images, load_images, read_image

RNG = np.random.default_rng(0)


def _pixels(height=12, width=10):
    return RNG.integers(0, 256, (height, width, 3), dtype=np.uint8)


def _encoded(pixels, form="PNG", **options):
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, form, **options)
    return stream.getvalue()


def _bomb(width, height):
    """A PNG of a few bytes whose header announces a huge picture."""

    def chunk(kind, body):
        return len(body).to_bytes(4, "big") + kind + body + zlib.crc32(kind + body).to_bytes(4, "big")

    header = width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes((8, 2, 0, 0, 0))
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(99))) + chunk(b"IEND", b"")
    )


def _written(root, files):
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    return root


def _packed(path, files):
    with tarfile.open(path, "w") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return path


A, B, C = _pixels(), _pixels(7, 9), _pixels(20, 20)
GOOD = {"bee/2.png": _encoded(B), "ant/1.png": _encoded(A), "bee/deep/3.bmp": _encoded(C, "BMP")}


@pytest.fixture(params=["folder", "tar"])
def place(request, tmp_path):
    """Files as a folder or as a tar."""

    def put(files):
        return _written(tmp_path / "data", files) if request.param == "folder" else _packed(tmp_path / "d.tar", files)

    return put


def test_classes_are_folders_and_pictures_are_read_when_asked_for(place):
    folder = image_folder(place(GOOD))
    assert folder.classes == ("ant", "bee")
    assert folder.names == ("ant/1.png", "bee/2.png", "bee/deep/3.bmp")
    assert folder.labels.tolist() == [0, 1, 1]
    assert folder.labels.dtype == np.int32
    assert (len(folder), folder.skipped) == (3, ())
    for index, pixels in enumerate((A, B, C)):
        np.testing.assert_array_equal(folder.one(index), pixels)
    both = folder.read([2, 0], (12, 10), fit="squash")
    assert (both.shape, both.dtype) == ((2, 12, 10, 3), np.uint8)
    np.testing.assert_array_equal(both[1], A)  # already of that size: not a bit changed
    some = folder.take([2, 0])
    assert (some.names, some.labels.tolist(), some.classes) == (("bee/deep/3.bmp", "ant/1.png"), [1, 0], folder.classes)
    np.testing.assert_array_equal(some.one(0), C)
    assert some.digest() != folder.digest() == image_folder(place(GOOD)).digest()
    with pytest.raises(IndexError, match="from 0 to 3 reach beyond the 3 pictures"):
        folder.take([0, 3])


def test_pictures_are_taken_by_places_or_by_a_mask_and_by_nothing_else(tmp_path):
    folder = image_folder(_written(tmp_path, GOOD))
    mask = np.array([False, True, True])
    assert folder.take(mask).names == folder.take([1, 2]).names == folder.take(range(-2, 0)).names == folder.names[1:]
    np.testing.assert_array_equal(folder.read(mask, 5), folder.read(iter([1, 2]), 5))
    assert (len(folder.take([])), folder.read([], 5).shape) == (0, (0, 5, 5, 3))
    for bad in (mask[:2], [True, False, True, False], np.array([0.0, 1.0]), [1.7], ["1"]):
        for call in (folder.take, lambda bad: folder.read(bad, 5)):
            with pytest.raises(ValueError, match="must be integers, or booleans for each of the 3 pictures"):
                call(bad)


def test_a_digest_names_the_file_that_has_gone(tmp_path):
    folder = image_folder(_written(tmp_path, GOOD))
    (tmp_path / "bee" / "2.png").unlink()
    with pytest.raises(DataError, match=r"^picture 'bee/2.png' cannot be read \(No such file or directory\)$"):
        folder.digest()


def test_what_cannot_be_read_is_named_and_skipped(place):
    whole = _encoded(_pixels(200, 200), "JPEG")
    bad = {
        "ant/notes.txt": b"no picture",
        "ant/empty.png": b"",
        "bee/short.jpg": whole[: len(whole) // 2],
        "bee/torn.png": GOOD["bee/2.png"][:-30],
        "ant/bomb.png": _bomb(60_000, 60_000),
        "ant/large.png": _bomb(9_000, 9_000),
        "ant/print.jpg": _cmyk(),
        "ant/deep.png": _encoded(np.zeros((4, 4), np.uint16)),
        "ant/glass.png": _encoded(np.full((4, 4, 4), 7, np.uint8)),
        "loose.png": GOOD["ant/1.png"],
        "ant/.hidden": b"passed over",
    }
    folder = image_folder(place(GOOD | bad))
    assert folder.names == ("ant/1.png", "bee/2.png", "bee/deep/3.bmp")
    reasons = dict(folder.skipped)
    assert set(reasons) == set(bad) - {"ant/.hidden"}
    for name, reason in {
        "ant/notes.txt": "is no JPEG, PNG, BMP, TIFF or WebP picture",
        "ant/empty.png": "is no JPEG",
        "bee/short.jpg": "is damaged (image file is truncated",
        "bee/torn.png": "is damaged",
        "ant/bomb.png": "has more than the 67,108,864 pixels allowed",
        "ant/large.png": "has 9000 x 9000 pixels; 67,108,864 are allowed",
        "ant/print.jpg": "is of mode 'CMYK' (4 channels); RGB and 8-bit gray are read",
        "ant/deep.png": "is of mode 'I;16'",
        "ant/glass.png": "has transparent pixels",
        "loose.png": "lies in no class folder",
    }.items():
        assert reasons[name].startswith(reason), (name, reasons[name])


def _cmyk():
    stream = io.BytesIO()
    Image.new("CMYK", (4, 4)).save(stream, "JPEG")
    return stream.getvalue()


def test_without_a_check_damage_is_told_when_the_picture_is_read(place):
    folder = image_folder(place(GOOD | {"ant/0.png": GOOD["ant/1.png"][:-30]}), check=False)
    assert (len(folder), folder.skipped) == (4, ())
    with pytest.raises(DataError, match=r"^picture 'ant/0.png' is damaged"):
        folder.read([0], 5)


def test_gray_opaque_and_turned_pictures_are_rgb_and_upright(tmp_path):
    gray = A[..., 0]
    opaque = np.concatenate([A, np.full((*A.shape[:2], 1), 255, np.uint8)], -1)
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held sideways: turn by 90 degrees clockwise to see it upright
    _written(tmp_path, {"g.png": _encoded(gray), "o.png": _encoded(opaque), "t.png": _encoded(A, exif=exif)})
    np.testing.assert_array_equal(read_image(tmp_path / "g.png"), np.repeat(gray[..., None], 3, -1))
    np.testing.assert_array_equal(read_image(tmp_path / "o.png"), A)
    np.testing.assert_array_equal(read_image(tmp_path / "t.png"), np.rot90(A, -1))


def test_reduction_is_antialiased(tmp_path):
    """976 to 141: a checkerboard of single pixels becomes even gray; other pictures are what torch makes of them."""
    fine = np.indices((976, 976)).sum(0) % 2 * 255
    slope = np.broadcast_to(np.linspace(0, 255, 976)[None, :, None], (976, 976, 3))
    files = {"fine": np.repeat(fine[..., None], 3, -1), "slope": slope, "noise": _pixels(976, 976)}
    _written(tmp_path, {f"{name}.png": _encoded(pixels.astype(np.uint8)) for name, pixels in files.items()})
    small = {name: read_image(tmp_path / f"{name}.png", 141).astype(int) for name in files}
    assert abs(small["fine"] - 127.5).max() <= 3
    centers = (np.arange(141) + 0.5) * 976 / 141 - 0.5
    assert abs(small["slope"] - (centers * 255 / 975)[None, :, None])[:, 2:-2].max() <= 1.5
    torch = pytest.importorskip("torch")
    x = torch.tensor(files["noise"]).permute(2, 0, 1)[None].float()
    expected = torch.nn.functional.interpolate(x, (141, 141), mode="bilinear", antialias=True)[0].permute(1, 2, 0)
    assert abs(small["noise"] - expected.numpy()).max() <= 1.01


def test_a_jpeg_decoded_small_looks_like_one_reduced_after_decoding(tmp_path):
    rows, columns = np.mgrid[:976, :976] / 976
    smooth = np.stack([rows, columns, 0.5 + 0.5 * np.sin(40 * rows * columns)], -1)
    pixels = (255 * smooth).astype(np.uint8)
    _written(tmp_path, {"a.jpg": _encoded(pixels, "JPEG", quality=95), "a.png": _encoded(pixels)})
    from_jpeg, from_png = (read_image(tmp_path / name, 141).astype(int) for name in ("a.jpg", "a.png"))
    assert abs(from_jpeg - from_png).mean() < 1
    assert abs(from_jpeg - from_png).max() < 12


def test_cropping_keeps_the_middle_and_squashing_keeps_all(tmp_path):
    wide = np.zeros((40, 120, 3), np.uint8)
    wide[:, 40:80] = 200  # the middle square
    _written(tmp_path, {"w.png": _encoded(wide)})
    crop, squash = (read_image(tmp_path / "w.png", 20, fit=fit).astype(int) for fit in ("crop", "squash"))
    assert (crop[:, 1:-1] == 200).all()
    np.testing.assert_allclose(squash.mean(), 200 / 3, atol=3)
    assert (squash[:, [0, -1]] == 0).all()
    assert read_image(tmp_path / "w.png", (10, 30)).shape == (10, 30, 3)
    with pytest.raises(ValueError, match="fit 'crp' is not one of crop, squash; did you mean 'crop'"):
        read_image(tmp_path / "w.png", 20, fit="crp")
    for size in (0, (3, -1), 1 << 20, 8.0, (8, 8, 3), (8,), "8", True, (8, True), (8.7, 8), None, np.ones((2, 2))):
        with pytest.raises(ValueError, match="must be a height and width from 1, integers"):
            images.checked_size(size)
    for size in (8, np.int16(8), (np.int64(8), 8), [8, 8], np.array([8, 8]), np.array(8)):
        assert images.checked_size(size) == (8, 8)
        assert {type(side) for side in images.checked_size(size)} == {int}


def test_folders_inside_and_given_classes(place):
    path = place({"train/a/1.png": GOOD["ant/1.png"], "train/b/1.png": GOOD["bee/2.png"], "val/b/2.png": _encoded(C)})
    train = image_folder(path, within="train")
    assert (train.classes, train.names) == (("a", "b"), ("train/a/1.png", "train/b/1.png"))
    validation = image_folder(path, within="val/", classes=train.classes, least_classes=1)
    assert (validation.classes, validation.labels.tolist()) == (("a", "b"), [1])
    assert image_folder(path).classes == ("train", "val")
    assert image_folder(path, within="val", classes=("a", "b")).labels.tolist() == [1]  # a is empty here
    with pytest.raises(ValueError, match="folder 'val' has the folder 'b', which is none of the classes x, y"):
        image_folder(path, within="val", classes=("x", "y"))
    with pytest.raises(ValueError, match=r"classes=\('b',\) are 1; 2 are needed"):
        image_folder(path, within="val", classes=("b",))


@pytest.mark.parametrize(
    ("files", "sentence"),
    [
        ({}, "has no picture in a class folder"),
        ({"ant/a.txt": b"text"}, r"has no picture in a class folder \(1 files were skipped; 'ant/a.txt' is no JPEG"),
        ({"ant/1.png": GOOD["ant/1.png"]}, r"has pictures of 1 class \(ant\); 2 are needed"),
        (
            {"ant/1.png": GOOD["ant/1.png"], "bee/1.png": b"\x89PNG"},
            r"has pictures of 1 class \(ant\); 2 are needed \(1 files were skipped; 'bee/1.png' is",
        ),
    ],
    ids=["empty", "no picture", "one class", "one readable class"],
)
def test_folders_that_cannot_be_learned_from_are_refused(files, sentence, tmp_path):
    (tmp_path / "data").mkdir()
    with pytest.raises(ValueError, match=sentence):
        image_folder(_written(tmp_path / "data", files))


def test_one_class_is_allowed_where_it_is_asked_for(tmp_path):
    assert len(image_folder(_written(tmp_path, {"ant/1.png": GOOD["ant/1.png"]}), least_classes=1)) == 1


def test_paths_that_are_no_folder_of_pictures_are_one_sentence(tmp_path):
    _written(tmp_path, {"a.zip": b"PK", "b.tar": b"no tar at all" * 99, "c.png": b"?"})
    for path, sentence in {
        "none": "no folder or tar of pictures at .*No such file",
        "a.zip": "must be a folder or an uncompressed .tar",
        "b.tar": "is not a sound tar file",
    }.items():
        with pytest.raises(DataError, match=sentence) as caught:
            image_folder(tmp_path / path)
        assert "\n" not in str(caught.value)
    with pytest.raises(DataError, match=r"picture '.*none.png' cannot be read \(No such file"):
        read_image(tmp_path / "none.png")
    with pytest.raises(DataError, match="is no JPEG"):
        read_image(tmp_path / "c.png")


@pytest.mark.skipif(os.name == "nt", reason="pipes and links of Unix")
def test_pipes_links_and_files_without_permission_do_not_stop_it(tmp_path):
    root = _written(tmp_path / "data", GOOD)
    other = _written(tmp_path / "other", {"5.png": GOOD["ant/1.png"], "deep/er/6.png": GOOD["bee/2.png"]})
    (other / "deep" / "away").symlink_to(root)
    (root / "self").symlink_to(root)
    (root / "above").symlink_to(tmp_path)
    os.mkfifo(root / "ant" / "pipe.png")
    (root / "wasp").symlink_to(other)  # a class folder elsewhere
    (root / "ant" / "round").symlink_to(root)
    (root / "ant" / "gone.png").symlink_to(tmp_path / "nowhere")
    folder = image_folder(root)
    assert folder.names == ("ant/1.png", "bee/2.png", "bee/deep/3.bmp", "wasp/5.png", "wasp/deep/er/6.png")
    assert dict(folder.skipped)["ant/pipe.png"] == "is not a plain file"
    assert "No such file" in dict(folder.skipped)["ant/gone.png"]


@pytest.mark.skipif(os.name == "nt", reason="links of Unix")
def test_a_linked_class_folder_without_permission_is_one_sentence(tmp_path, monkeypatch):
    root, other = _written(tmp_path / "data", GOOD), tmp_path / "other"
    other.mkdir()
    (root / "wasp").symlink_to(other)
    plain = os.scandir

    def guarded(path="."):  # permissions do not bind root, under whom tests may run
        if os.fspath(path) == str(root / "wasp"):
            raise PermissionError(13, "Permission denied", str(path))
        return plain(path)

    monkeypatch.setattr(os, "scandir", guarded)
    with pytest.raises(DataError, match=r"the folder '.*wasp' cannot be read \(Permission denied\)"):
        image_folder(root)


def test_a_file_without_permission_is_skipped_by_its_reason(tmp_path, monkeypatch):
    root = _written(tmp_path, GOOD)
    refused = root / "ant" / "1.png"
    plain = type(root).open

    def guarded(self, *args, **kwargs):  # permissions do not bind root, under whom tests may run
        if self == refused:
            raise PermissionError(13, "Permission denied", str(self))
        return plain(self, *args, **kwargs)

    monkeypatch.setattr(type(root), "open", guarded)
    folder = image_folder(root, least_classes=1)
    assert folder.skipped == (("ant/1.png", "cannot be read (Permission denied)"),)


def test_long_files_are_not_read_to_their_end(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "_FILE_BYTES", 1000)
    root = _written(
        tmp_path, {"ant/1.png": _encoded(_pixels(40, 40)), "bee/1.png": _encoded(B), "bug/1.png": _encoded(B)}
    )
    assert dict(image_folder(root).skipped) == {"ant/1.png": "has more than the 1,000 bytes allowed"}


def test_a_tar_that_leads_outside_or_lies_is_refused(tmp_path):
    for name in ("../ant/1.png", "/ant/1.png"):
        with pytest.raises(DataError, match="leads outside"):
            image_folder(_packed(tmp_path / "x.tar", {name: b"x"}))
    path = _packed(tmp_path / "cut.tar", GOOD)
    path.write_bytes(path.read_bytes()[:1600])
    with pytest.raises(DataError, match="not a sound tar"):
        image_folder(path)
    with pytest.raises(DataError, match=r"has the entry 'ant/1.png' twice, once as './ant/1.png'"):
        image_folder(_packed(tmp_path / "two.tar", GOOD | {"./ant/1.png": GOOD["bee/2.png"]}))


def test_what_a_tar_holds_beside_pictures_is_named_and_skipped(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "_FILE_BYTES", 1000)
    path = _packed(tmp_path / "d.tar", GOOD | {"./ant/12:30.png": GOOD["bee/2.png"], "ant/long.png": bytes(1001)})
    link = tarfile.TarInfo("bee/link.png")
    link.type, link.linkname = tarfile.SYMTYPE, "2.png"
    with tarfile.open(path, "a") as archive:
        archive.addfile(link)
    folder = image_folder(path)
    assert folder.names == ("ant/1.png", "ant/12:30.png", "bee/2.png")
    assert dict(folder.skipped) == {
        "ant/long.png": "has 1,001 bytes; 1,000 are allowed",
        "bee/link.png": "is not a plain file",
        "bee/deep/3.bmp": "has 1,254 bytes; 1,000 are allowed",
    }
    np.testing.assert_array_equal(folder.one(1), B)


def test_a_tar_is_found_from_another_folder_too(tmp_path, monkeypatch):
    _packed(tmp_path / "d.tar", GOOD)
    monkeypatch.chdir(tmp_path)
    folder = image_folder("d.tar")
    monkeypatch.chdir("/")
    np.testing.assert_array_equal(folder.one(0), A)


def test_want_of_memory_is_not_taken_for_damage(tmp_path, monkeypatch):
    from PIL import Image as pillow

    def short(*_, **__):
        raise MemoryError

    _written(tmp_path, GOOD)
    monkeypatch.setattr(pillow.Image, "resize", short)
    with pytest.raises(MemoryError):
        image_folder(tmp_path)


def test_named_image_sets(real_data, tmp_path):
    train, validation = load_images("hymenoptera", cache=real_data)
    assert train.classes == validation.classes == ("ants", "bees")
    assert np.bincount(train.labels).tolist() == [123, 121]
    assert np.bincount(validation.labels).tolist() == [70, 83]
    assert not set(train.names) & set(validation.names)
    small = train.read([0, 200], 141)
    assert small.shape == (2, 141, 141, 3)
    assert small.std() > 20
    checked = image_folder(real_data / "hymenoptera_256" / "hymenoptera_256.tar", within="train")
    assert (checked.names, checked.skipped) == (train.names, ())
    with pytest.raises(DataError, match=r"missing and has no public download.*hymenoptera_256.tar"):
        load_images("hymenoptera", cache=tmp_path)
    assert image_names() == ("hymenoptera",)
    with pytest.raises(ValueError, match="image set 'hymenopter' is not one of hymenoptera"):
        load_images("hymenopter")


def test_the_largest_crop_stays_inside_pictures_of_any_size():
    """Rounding of a crop's corner must not make a good picture unreadable."""
    from nnjax.data.images import _resized

    for width in range(181, 521, 17):
        for height in (141, 193, 256, 333):
            for size in ((141, 141), (7, 13), (224, 224)):
                made = _resized(Image.new("RGB", (width, height), (10, 20, 30)), size, "crop")
                assert made.size == size[::-1]
                assert made.getpixel((0, 0)) == made.getpixel((size[1] - 1, size[0] - 1)) == (10, 20, 30)
