"""packing.py - the codecs of record batches for tests, through the C libraries that Karst itself is built with."""
import ctypes
import gzip
import struct

NONE, GZIP, SNAPPY, LZ4, ZSTD = range(5)
NAMES = ("none", "gzip", "snappy", "lz4", "zstd")
JAVA_SNAPPY = b"\x82SNAPPY\0" + struct.pack(">ii", 1, 1)


def _library(name):
    library = ctypes.CDLL(name)
    for function, arguments, result in {
            "liblz4.so.1": (("LZ4F_compressFrame", 5, ctypes.c_size_t), ("LZ4F_compressFrameBound", 2, ctypes.c_size_t)),
            "libzstd.so.1": (("ZSTD_compress", 5, ctypes.c_size_t), ("ZSTD_compressBound", 1, ctypes.c_size_t)),
            "libsnappy.so.1": ()}[name]:
        getattr(library, function).restype = result
    return library


def _into(function, bound, data, *more):
    out = ctypes.create_string_buffer(bound)
    size = function(out, ctypes.c_size_t(bound), data, ctypes.c_size_t(len(data)), *more)
    assert 0 <= size <= bound, size
    return out.raw[:size]


def raw_snappy(data):
    library, out = _library("libsnappy.so.1"), ctypes.create_string_buffer(32 + len(data) + len(data) // 6)
    size = ctypes.c_size_t(len(out))
    assert library.snappy_compress(data, ctypes.c_size_t(len(data)), out, ctypes.byref(size)) == 0
    return out.raw[:size.value]


class _Lz4Preferences(ctypes.Structure):
    _fields_ = [("block_size", ctypes.c_int), ("independent", ctypes.c_int), ("rest", ctypes.c_uint8 * 48)]


def lz4(data, independent=True):
    """In blocks of 64 KiB, as Kafka's clients write them; blocks that build on each other Kafka does not read."""
    preferences = _Lz4Preferences(4, int(independent))
    return _into(_library("liblz4.so.1").LZ4F_compressFrame, 4096 + 2 * len(data), data, ctypes.byref(preferences))


def compress(codec, data):
    if codec == GZIP:
        return gzip.compress(data, mtime=0)
    if codec == SNAPPY:
        block = raw_snappy(data)
        return JAVA_SNAPPY + struct.pack(">i", len(block)) + block
    if codec == LZ4:
        return lz4(data)
    if codec == ZSTD:
        return _into(_library("libzstd.so.1").ZSTD_compress, 4096 + 2 * len(data), data, 3)
    return data


def _blocks(data):
    at = len(JAVA_SNAPPY)
    while at < len(data):
        size, = struct.unpack(">i", data[at:at + 4])
        yield data[at + 4:at + 4 + size]
        at += 4 + size


def _unsnap(block):
    library, size = _library("libsnappy.so.1"), ctypes.c_size_t()
    assert library.snappy_uncompressed_length(block, ctypes.c_size_t(len(block)), ctypes.byref(size)) == 0
    out = ctypes.create_string_buffer(size.value + 1)
    assert library.snappy_uncompress(block, ctypes.c_size_t(len(block)), out, ctypes.byref(size)) == 0
    return out.raw[:size.value]


def _unlz4(data, bound):
    library, context = _library("liblz4.so.1"), ctypes.c_void_p()
    assert library.LZ4F_createDecompressionContext(ctypes.byref(context), 100) == 0
    out, made, taken = ctypes.create_string_buffer(bound), ctypes.c_size_t(bound), ctypes.c_size_t(len(data))
    library.LZ4F_decompress.restype = ctypes.c_size_t
    left = library.LZ4F_decompress(context, out, ctypes.byref(made), data, ctypes.byref(taken), None)
    library.LZ4F_freeDecompressionContext(context)
    assert left == 0 and taken.value == len(data)
    return out.raw[:made.value]


class _Piece(ctypes.Structure):
    _fields_ = [("at", ctypes.c_void_p), ("size", ctypes.c_size_t), ("pos", ctypes.c_size_t)]


def _unzstd(data, bound):
    """As a stream: what Java writes names no size."""
    library = _library("libzstd.so.1")
    library.ZSTD_createDStream.restype = ctypes.c_void_p
    library.ZSTD_decompressStream.restype = ctypes.c_size_t
    context = ctypes.c_void_p(library.ZSTD_createDStream())
    source, out = ctypes.create_string_buffer(data, len(data)), ctypes.create_string_buffer(bound)
    from_, to = _Piece(ctypes.addressof(source), len(data), 0), _Piece(ctypes.addressof(out), bound, 0)
    left = library.ZSTD_decompressStream(context, ctypes.byref(to), ctypes.byref(from_))
    library.ZSTD_freeDStream(context)
    assert left == 0 and from_.pos == len(data)
    return out.raw[:to.pos]


def decompress(codec, data, bound=1 << 24):
    if codec == GZIP:
        return gzip.decompress(data)
    if codec == SNAPPY:
        return b"".join(map(_unsnap, _blocks(data))) if data.startswith(JAVA_SNAPPY[:8]) else _unsnap(data)
    if codec == LZ4:
        return _unlz4(data, bound)
    return _unzstd(data, bound) if codec == ZSTD else data
