"""Checksums of FITS, computed piece by piece so that no file has to fit in memory."""

import numpy as np

__all__ = ["add_words", "encode_checksum", "sum_of_file"]

_CHUNK = 16 * 2**20


def add_words(total, data):
    """Add big-endian 32-bit words to a ones' complement sum.

    Parameters
    ----------
    total : int
        Sum so far.
    data : bytes-like
        A multiple of 4 bytes.

    Returns
    -------
    int
        Below 2**32.

    References
    ----------
    FITS Standard 4.0, appendix J.
    """
    words = np.frombuffer(data, dtype=">u2")
    high = int(words[0::2].sum(dtype=np.uint64))
    low = int(words[1::2].sum(dtype=np.uint64))
    total += (high << 16) + low
    while total >> 32:
        total = (total & 0xFFFFFFFF) + (total >> 32)
    return total


def sum_of_file(file, offset, length, total=0):
    """Ones' complement sum over a part of an open file."""
    file.seek(offset)
    while length:
        chunk = file.read(min(length, _CHUNK))
        if not chunk:
            raise OSError("file ends before its data do")
        length -= len(chunk)
        total = add_words(total, chunk + b"\0" * (-len(chunk) % 4))
    return total


def encode_checksum(total):
    """16 characters that bring the ones' complement sum of an HDU to zero.

    Parameters
    ----------
    total : int
        Sum of the HDU with ``CHECKSUM`` set to sixteen zeros.

    Returns
    -------
    str

    References
    ----------
    FITS Standard 4.0, appendix J.
    """
    value = ~total & 0xFFFFFFFF
    encoded = np.zeros((4, 4), dtype=int)
    for position in range(4):
        byte = (value >> (24 - 8 * position)) & 0xFF
        quarters = np.full(4, byte // 4 + ord("0"))
        quarters[0] += byte % 4
        # Punctuation is moved to letters and digits, in pairs, so that the sum stays.
        while any(0x3A <= q <= 0x40 or 0x5B <= q <= 0x60 for q in quarters):
            for pair in (0, 2):
                if any(0x3A <= q <= 0x40 or 0x5B <= q <= 0x60 for q in quarters[pair : pair + 2]):
                    quarters[pair] += 1
                    quarters[pair + 1] -= 1
        encoded[:, position] = quarters
    text = "".join(chr(code) for code in encoded.ravel())
    # The value begins in column 12 of its card, one byte past a word boundary.
    return text[-1] + text[:-1]
