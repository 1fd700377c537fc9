/* What Unicode's versions differ in.
 *
 * `tokenizers` classifies characters with Oniguruma's tables (Unicode 16) and normalizes with those
 * of a much older version (9); PCRE2 and utf8proc have whatever they were built with (14 and 15 on
 * Debian 12). The lists here are the differences, found by asking both about every code point;
 * where PCRE2 is newer they change nothing. */
#include "text/tok_unicode.h"

#include <stdio.h>
#include <string.h>

typedef struct code_range {
    uint32_t first, last;
} code_range;

/* Characters that came with Unicode 15 to 16, by general category. */
static const code_range newer_lu[] = {
    {0x1c89, 0x1c89}, {0xa7cb, 0xa7cc}, {0xa7da, 0xa7da}, {0xa7dc, 0xa7dc}, {0x10d50, 0x10d65}};
static const code_range newer_ll[] = {
    {0x1c8a, 0x1c8a}, {0xa7cd, 0xa7cd}, {0xa7db, 0xa7db}, {0x10d70, 0x10d85}, {0x1df25, 0x1df2a}};
static const code_range newer_lm[] = {{0x10d4e, 0x10d4e}, {0x10d6f, 0x10d6f}, {0x16d40, 0x16d42},
                                      {0x16d6b, 0x16d6c}, {0x1e030, 0x1e06d}, {0x1e4eb, 0x1e4eb}};
static const code_range newer_lo[] = {
    {0x105c0, 0x105f3}, {0x10d4a, 0x10d4d}, {0x10d4f, 0x10d4f}, {0x10ec2, 0x10ec4},
    {0x1123f, 0x11240}, {0x11380, 0x11389}, {0x1138b, 0x1138b}, {0x1138e, 0x1138e},
    {0x11390, 0x113b5}, {0x113b7, 0x113b7}, {0x113d1, 0x113d1}, {0x113d3, 0x113d3},
    {0x11bc0, 0x11be0}, {0x11f02, 0x11f02}, {0x11f04, 0x11f10}, {0x11f12, 0x11f33},
    {0x1342f, 0x1342f}, {0x13441, 0x13446}, {0x13460, 0x143fa}, {0x16100, 0x1611d},
    {0x16d43, 0x16d6a}, {0x18cff, 0x18cff}, {0x1b132, 0x1b132}, {0x1b155, 0x1b155},
    {0x1e4d0, 0x1e4ea}, {0x1e5d0, 0x1e5ed}, {0x1e5f0, 0x1e5f0}, {0x2b739, 0x2b739},
    {0x2ebf0, 0x2ee5d}, {0x31350, 0x323af}};
static const code_range newer_m[] = {
    {0x897, 0x897},     {0xcf3, 0xcf3},     {0xece, 0xece},     {0x10d69, 0x10d6d},
    {0x10efc, 0x10eff}, {0x11241, 0x11241}, {0x113b8, 0x113c0}, {0x113c2, 0x113c2},
    {0x113c5, 0x113c5}, {0x113c7, 0x113ca}, {0x113cc, 0x113d0}, {0x113d2, 0x113d2},
    {0x113e1, 0x113e2}, {0x11f00, 0x11f01}, {0x11f03, 0x11f03}, {0x11f34, 0x11f3a},
    {0x11f3e, 0x11f42}, {0x11f5a, 0x11f5a}, {0x13440, 0x13440}, {0x13447, 0x13455},
    {0x1611e, 0x1612f}, {0x1e08f, 0x1e08f}, {0x1e4ec, 0x1e4ef}, {0x1e5ee, 0x1e5ef}};
static const code_range newer_nd[] = {{0x10d40, 0x10d49}, {0x116d0, 0x116e3}, {0x11bf0, 0x11bf9},
                                      {0x11f50, 0x11f59}, {0x16130, 0x16139}, {0x16d70, 0x16d79},
                                      {0x1ccf0, 0x1ccf9}, {0x1e4f0, 0x1e4f9}, {0x1e5f1, 0x1e5fa}};
static const code_range newer_no[] = {{0x1d2c0, 0x1d2d3}};
static const code_range newer_pd[] = {{0x10d6e, 0x10d6e}};
static const code_range newer_po[] = {{0x1b4e, 0x1b4f},   {0x1b7f, 0x1b7f},   {0x113d4, 0x113d5},
                                      {0x113d7, 0x113d8}, {0x11b00, 0x11b09}, {0x11be1, 0x11be1},
                                      {0x11f43, 0x11f4f}, {0x16d6d, 0x16d6f}, {0x1e5ff, 0x1e5ff}};
static const code_range newer_sm[] = {{0x10d8e, 0x10d8f}};
static const code_range newer_so[] = {
    {0x2427, 0x2429},   {0x2ffc, 0x2fff},   {0x31e4, 0x31e5},   {0x31ef, 0x31ef},
    {0x1cc00, 0x1ccef}, {0x1cd00, 0x1ceb3}, {0x1f6dc, 0x1f6dc}, {0x1f774, 0x1f776},
    {0x1f77b, 0x1f77f}, {0x1f7d9, 0x1f7d9}, {0x1f8b2, 0x1f8bb}, {0x1f8c0, 0x1f8c1},
    {0x1fa75, 0x1fa77}, {0x1fa87, 0x1fa89}, {0x1fa8f, 0x1fa8f}, {0x1faad, 0x1faaf},
    {0x1fabb, 0x1fabf}, {0x1fac6, 0x1fac6}, {0x1face, 0x1facf}, {0x1fada, 0x1fadc},
    {0x1fadf, 0x1fadf}, {0x1fae8, 0x1fae9}, {0x1faf7, 0x1faf8}, {0x1fbcb, 0x1fbef}};
/* Characters that have a decomposition or a combining class, but came after Unicode 9. */
static const code_range inert[] = {
    {0x7fd, 0x7fd},     {0x898, 0x89f},     {0x8ca, 0x8d3},     {0x9fe, 0x9fe},
    {0xc3c, 0xc3c},     {0xd3b, 0xd3c},     {0xeba, 0xeba},     {0x1715, 0x1715},
    {0x1abf, 0x1ace},   {0x1df6, 0x1dfa},   {0x32ff, 0x32ff},   {0xa7f2, 0xa7f4},
    {0xa82c, 0xa82c},   {0xab69, 0xab69},   {0x10781, 0x10785}, {0x10787, 0x107b0},
    {0x107b2, 0x107ba}, {0x10d24, 0x10d27}, {0x10eab, 0x10eac}, {0x10f46, 0x10f50},
    {0x10f82, 0x10f85}, {0x11070, 0x11070}, {0x1133b, 0x1133b}, {0x1145e, 0x1145e},
    {0x11839, 0x1183a}, {0x11938, 0x11938}, {0x1193d, 0x1193e}, {0x11943, 0x11943},
    {0x119e0, 0x119e0}, {0x11a34, 0x11a34}, {0x11a47, 0x11a47}, {0x11a99, 0x11a99},
    {0x11d42, 0x11d42}, {0x11d44, 0x11d45}, {0x11d97, 0x11d97}, {0x16ff0, 0x16ff1},
    {0x1ccd6, 0x1ccef}, {0x1e130, 0x1e136}, {0x1e2ae, 0x1e2ae}, {0x1e2ec, 0x1e2ef},
    {0x1f16c, 0x1f16c}, {0x1fbf0, 0x1fbf9}};

#define SET(category, ranges, inert)                                                               \
    { category, ranges, sizeof(ranges) / sizeof *(ranges), inert }

static const struct {
    const char *category;
    const code_range *ranges;
    size_t count;
    bool inert; /* newer tables normalize some; false: none but those in the list above */
} newer[] = {SET("Lu", newer_lu, true),  SET("Ll", newer_ll, true),  SET("Lm", newer_lm, true),
             SET("Lo", newer_lo, true),  SET("M", newer_m, true),    SET("Nd", newer_nd, true),
             SET("No", newer_no, true),  SET("Pd", newer_pd, false), SET("Po", newer_po, false),
             SET("Sm", newer_sm, false), SET("So", newer_so, false)};

mq_status mq_unicode_append_newer(mq_bytes *out, const char *category, size_t size, mq_error *err) {
    mq_status status = MQ_OK;
    for (size_t i = 0; i < sizeof newer / sizeof *newer; i++) {
        if (size == 0 || strncmp(newer[i].category, category, size) != 0) {
            continue;
        }
        for (size_t k = 0; k < newer[i].count && !status; k++) {
            char text[32];
            const code_range *range = &newer[i].ranges[k];
            int length = snprintf(text, sizeof text, "\\x{%x}-\\x{%x}", (unsigned)range->first,
                                  (unsigned)range->last);
            status = mq_bytes_append(out, text, (size_t)length, err);
        }
    }
    return status;
}

static bool contains(const code_range *ranges, size_t count, uint32_t c) {
    size_t low = 0;
    while (count > 0) { /* the first range that does not end before c */
        size_t half = count / 2;
        bool before = ranges[low + half].last < c;
        low += before ? half + 1 : 0;
        count = before ? count - half - 1 : half;
    }
    return ranges[low].first <= c && c <= ranges[low].last;
}

bool mq_unicode_inert(uint32_t c) {
    if (c < inert[0].first) {
        return false;
    }
    const size_t last = sizeof inert / sizeof *inert - 1;
    bool found = c <= inert[last].last && contains(inert, last + 1, c);
    for (size_t i = 0; i < sizeof newer / sizeof *newer && !found; i++) {
        found = newer[i].inert && c <= newer[i].ranges[newer[i].count - 1].last &&
                contains(newer[i].ranges, newer[i].count, c);
    }
    return found;
}
