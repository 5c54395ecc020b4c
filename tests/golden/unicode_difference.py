"""Writes src/model/unicode_ranges.h: where the `tokenizers` package and PCRE2 disagree about Unicode.

Both are asked about every code point; only the differences are kept, so that a pattern can be rewritten for PCRE2 and mean
what it means in `tokenizers`. A development tool: needs tokenizers==0.23.3, libpcre2-8.so.0 (10.42) and libutf8proc.so.2 (2.8.0), of Debian 12.

usage: python tests/golden/unicode_difference.py > src/model/unicode_ranges.h
"""
import bisect
import ctypes

import tokenizers
from tokenizers import Regex, normalizers, pre_tokenizers

CATEGORIES = "Lu Ll Lt Lm Lo Mn Mc Me Nd Nl No Pc Pd Ps Pe Pi Pf Po Sm Sc Sk So Zs Zl Zp Cc Cf Cn Co".split()
POINTS = [c for c in range(0x110000) if not 0xD800 <= c < 0xE000]


def by_tokenizers(pattern):
    keep = pre_tokenizers.Split(Regex(pattern + "+"), "removed", invert=True)
    found = set()
    for i in range(0, len(POINTS), 4096):
        for piece, _ in keep.pre_tokenize_str("".join(map(chr, POINTS[i : i + 4096]))):
            found.update(map(ord, piece))
    return found


def isolated(pre_tokenizer):
    """The code points that the pre-tokenizer sets apart between letters."""
    found = set()
    for i in range(0, len(POINTS), 4096):
        for piece, _ in pre_tokenizer.pre_tokenize_str("a".join(map(chr, POINTS[i : i + 4096]))):
            if len(piece) == 1 and piece != "a":
                found.add(ord(piece))
    return found


class Pcre2:
    UTF, UCP, CASELESS = 0x00080000, 0x00020000, 0x00000008

    def __init__(self):
        self.lib = ctypes.CDLL("libpcre2-8.so.0")
        for name in ("compile", "match_data_create", "get_ovector_pointer"):
            getattr(self.lib, f"pcre2_{name}_8").restype = ctypes.c_void_p
        version = ctypes.create_string_buffer(64)
        self.lib.pcre2_config_8(11, version)
        self.version = version.value.decode()
        self.text = "".join(map(chr, POINTS)).encode()
        self.starts, at = [], 0
        for c in POINTS:
            self.starts.append(at)
            at += 1 if c < 0x80 else 2 if c < 0x800 else 3 if c < 0x10000 else 4

    def members(self, pattern):
        error, where = ctypes.c_int(), ctypes.c_size_t()
        encoded = (pattern + "+").encode()
        code = self.lib.pcre2_compile_8(encoded, ctypes.c_size_t(len(encoded)), self.UTF | self.UCP, ctypes.byref(error), ctypes.byref(where), None)
        if not code:
            raise SystemExit(f"PCRE2 does not know {pattern}")
        data = self.lib.pcre2_match_data_create_8(1, None)
        ovector = ctypes.cast(self.lib.pcre2_get_ovector_pointer_8(ctypes.c_void_p(data)), ctypes.POINTER(ctypes.c_size_t))
        found, at, no_utf_check = set(), 0, 0x40000000
        while (
            self.lib.pcre2_match_8(ctypes.c_void_p(code), self.text, ctypes.c_size_t(len(self.text)), ctypes.c_size_t(at), no_utf_check,
                                   ctypes.c_void_p(data), None) > 0
        ):
            first, at = ovector[0], ovector[1]
            found.update(POINTS[bisect.bisect_left(self.starts, first) : bisect.bisect_left(self.starts, at)])
        return found


def unknown_to_normalizer():
    """Characters that utf8proc decomposes or reorders, and `tokenizers`, whose tables for form C are older, leaves alone."""
    lib = ctypes.CDLL("libutf8proc.so.2")
    lib.utf8proc_map.argtypes = [ctypes.c_char_p, ctypes.c_ssize_t, ctypes.POINTER(ctypes.c_void_p), ctypes.c_int]
    lib.utf8proc_map.restype = ctypes.c_ssize_t
    libc = ctypes.CDLL("libc.so.6")
    theirs = normalizers.NFD()

    def ours(text):
        made = ctypes.c_void_p()
        size = lib.utf8proc_map(text.encode(), len(text.encode()), ctypes.byref(made), 1 << 1 | 1 << 4)  # stable, decompose
        result = ctypes.string_at(made, size).decode()
        libc.free(made)
        return result

    found = set()
    for c in POINTS[1:]:
        between = "\u0345" + chr(c) + "\u0334"  # classes 240 and 1: anything with a class moves
        if ours(between) == theirs.normalize_str(between):
            continue
        assert theirs.normalize_str(between) == between, f"{c:x}: {theirs.normalize_str(between)!r}"
        found.update(map(ord, ours(chr(c))))
        found.add(c)
    return found


def ranges(points):
    out = []
    for c in sorted(points):
        if out and out[-1][1] == c - 1:
            out[-1][1] = c
        else:
            out.append([c, c])
    return out


def array(name, points):
    spans = ranges(points)
    print(f"inline constexpr CodeRange {name}[] = {{")
    line = "   "
    for first, last in spans:
        item = f" {{0x{first:x}, 0x{last:x}}},"
        if len(line) + len(item) > 140:
            print(line)
            line = "   "
        line += item
    print(line + "\n};")


def main():
    pcre = Pcre2()
    print("// Where the `tokenizers` package and PCRE2 disagree about Unicode: what to add to and take from PCRE2's classes.")
    print(f"// Made by tests/golden/unicode_difference.py from tokenizers {tokenizers.__version__} and PCRE2 {pcre.version}; not edited by hand.")
    print("#pragma once\n#include <cstdint>\n#include <span>\n#include <string_view>\n\nnamespace hadal {\n")
    print("struct CodeRange {  // code points, both ends included\n  uint32_t first, last;\n};")
    print("struct ClassDifference {  // what to add to PCRE2's category to have that of `tokenizers`\n  std::string_view category;\n"
          "  std::span<const CodeRange> add;\n};\n\n// clang-format off")
    rows, shrunk = [], []
    for category in CATEGORIES:
        theirs, ours = by_tokenizers(rf"\p{{{category}}}"), pcre.members(rf"\p{{{category}}}")
        if ours - theirs:
            shrunk.append(category)
        elif theirs - ours and category[0] != "M":
            array(f"{category.lower()}_add", theirs - ours)
            rows.append(category)
    array("m_add", by_tokenizers(r"\p{M}") - pcre.members(r"\p{M}"))  # characters that move between Mn and Mc
    array("white_space", by_tokenizers(r"\s"))
    numeric, n = isolated(pre_tokenizers.Digits(True)), by_tokenizers(r"\p{N}")
    assert n <= numeric and shrunk == ["Mn", "Cn"], "the rewriting only adds: look at src/model/regex.cpp"
    array("numeric_not_n", numeric - n)  # the pre-tokenizer Digits has newer tables than \p{N}
    array("unknown_to_nfc", unknown_to_normalizer())
    print("inline constexpr ClassDifference class_differences[] = {")
    for category in rows:
        print(f'    {{"{category}", {category.lower()}_add}},')
    print('    {"M", m_add},')
    print("};\n// clang-format on\n\n}  // namespace hadal")


if __name__ == "__main__":
    main()
