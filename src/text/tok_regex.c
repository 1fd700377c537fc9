/* From Oniguruma's Ruby syntax, which `tokenizers` uses, to PCRE2's.
 *
 * The two agree on most of what tokenizers are written with; this translates what they read
 * differently (\s, \w, \d, \v, \x, {,n}, scripts) and refuses the rest rather than guess. */
#include <stdio.h>
#include <string.h>

#include "base/error.h"
#include "text/tok_pattern.h"
#include "text/tok_unicode.h"

#define MAX_GROUPS 64

/* Inside a class: White_Space and its complement. PCRE2's own \s has U+180E besides. */
#define SPACE_SET                                                                                  \
    "\\x{9}-\\x{d}\\x{20}\\x{85}\\x{a0}\\x{1680}\\x{2000}-\\x{200a}\\x{2028}\\x{2029}\\x{202f}"    \
    "\\x{205f}\\x{3000}"
#define NOT_SPACE_SET                                                                              \
    "\\x{0}-\\x{8}\\x{e}-\\x{1f}\\x{21}-\\x{84}\\x{86}-\\x{9f}\\x{a1}-\\x{167f}\\x{1681}-\\x{"     \
    "1fff}\\x{200b}-\\x{2027}"                                                                     \
    "\\x{202a}-\\x{202e}\\x{2030}-\\x{205e}\\x{2060}-\\x{2fff}\\x{3001}-\\x{10ffff}"
/* What Oniguruma takes for \w: that of UTS 18 without Join_Control, and outside of classes the
 * superscripts and fractions of Latin-1. PCRE2's has no marks and less punctuation. */
#define WORD_CLASS "\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}"
#define WORD_SET WORD_CLASS "\\x{b2}\\x{b3}\\x{b9}\\x{bc}-\\x{be}"

typedef struct translator {
    const char *regex;
    size_t size, at;
    mq_bytes *out;
    mq_error *err;
    size_t depth;
    bool caseless[MAX_GROUPS + 1]; /* of the group at each depth */
} translator;

static mq_status refuse(translator *t, size_t at, const char *what) {
    return mq_fail(t->err, MQ_ERR_INPUT, "regular expression \"%.200s\": %s at position %zu",
                   t->regex, what, at);
}

static mq_status emit(translator *t, const char *text) {
    return mq_bytes_append(t->out, text, strlen(text), t->err);
}

static char peek(const translator *t, size_t ahead) {
    return t->size - t->at > ahead ? t->regex[t->at + ahead] : '\0';
}

static bool starts(const translator *t, const char *text) {
    size_t length = strlen(text);
    return t->size - t->at >= length && memcmp(t->regex + t->at, text, length) == 0;
}

static bool is_digit(char c) { return c >= '0' && c <= '9'; }

static bool is_ascii_letter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }

static int hex_value(char c) {
    if (is_digit(c)) {
        return c - '0';
    }
    char lower = (char)(c | 0x20);
    return lower >= 'a' && lower <= 'f' ? lower - 'a' + 10 : -1;
}

/* \x41, \x{1f600}, \u00e9; at stands on the x or u. Two digits name a byte for Oniguruma, so they
 * must be ASCII. */
static mq_status translate_code_point(translator *t) {
    size_t begin = t->at - 1;
    bool braces = t->regex[t->at] == 'x' && peek(t, 1) == '{';
    size_t max_digits = braces ? 6 : t->regex[t->at] == 'u' ? 4 : 2;
    t->at += braces ? 2 : 1;
    uint32_t value = 0;
    size_t digits = 0;
    for (; digits < max_digits && hex_value(peek(t, 0)) >= 0; digits++, t->at++) {
        value = value << 4 | (uint32_t)hex_value(peek(t, 0));
    }
    bool complete = braces ? digits > 0 && peek(t, 0) == '}' : digits == max_digits;
    if (!complete || value > 0x10ffff || (max_digits == 2 && value >= 0x80)) {
        return refuse(t, begin, "a code point that cannot be read");
    }
    t->at += braces ? 1 : 0;
    char text[16];
    snprintf(text, sizeof text, "\\x{%x}", (unsigned)value);
    return emit(t, text);
}

static bool is_general_category(const char *name, size_t size) {
    static const char *const categories[] = {"L",  "Lu", "Ll", "Lt", "Lm", "Lo", "M",  "Mn", "Mc",
                                             "Me", "N",  "Nd", "Nl", "No", "P",  "Pc", "Pd", "Ps",
                                             "Pe", "Pi", "Pf", "Po", "S",  "Sm", "Sc", "Sk", "So",
                                             "Z",  "Zs", "Zl", "Zp", "C",  "Cc", "Cf", "Cn", "Co"};
    for (size_t i = 0; i < sizeof categories / sizeof *categories; i++) {
        if (strlen(categories[i]) == size && memcmp(categories[i], name, size) == 0) {
            return true;
        }
    }
    return false;
}

/* A class of text and of what is newer than PCRE2 in some categories; inside a class (never
 * negated) without brackets. */
static mq_status emit_set(translator *t, bool in_class, bool negated, const char *text,
                          const char *const *categories) {
    mq_status status = in_class ? MQ_OK : emit(t, negated ? "[^" : "[");
    if (!status) {
        status = emit(t, text);
    }
    for (size_t i = 0; categories[i] && !status; i++) {
        status = mq_unicode_append_newer(t->out, categories[i], strlen(categories[i]), t->err);
    }
    return status || in_class ? status : emit(t, "]");
}

static mq_status emit_word(translator *t, bool in_class, bool negated) {
    static const char *const categories[] = {"L", "M", "Nd", NULL};
    return emit_set(t, in_class, negated, in_class ? WORD_CLASS : WORD_SET, categories);
}

/* Inside a class a negated category keeps PCRE2's version of Unicode. */
static mq_status emit_category(translator *t, bool in_class, bool negated, const char *name) {
    const char *const categories[] = {name, NULL};
    bool plain = !strchr("LMNPS", name[0]) || (in_class && negated);
    char text[8];
    snprintf(text, sizeof text, "\\%c{%.2s}", plain && negated ? 'P' : 'p', name);
    return plain ? emit(t, text) : emit_set(t, in_class, negated, text, categories);
}

/* \p{L}, \P{L}, \p{^L}, \p{Han}; at stands on the p. A name that is no general category is taken
 * for a script: plain \p{Han} would mean Script_Extensions to PCRE2, which refuses names that it
 * does not know. */
static mq_status translate_property(translator *t, bool in_class) {
    size_t begin = t->at - 1;
    bool negated = t->regex[t->at] == 'P';
    if (peek(t, 1) != '{') {
        return refuse(t, begin, "a property without braces");
    }
    t->at += 2;
    if (peek(t, 0) == '^') {
        negated = !negated;
        t->at++;
    }
    const char *name = t->regex + t->at;
    size_t size = 0;
    while (is_ascii_letter(peek(t, size)) || peek(t, size) == '_') {
        size++;
    }
    if (size == 0 || size > 40 || peek(t, size) != '}') {
        return refuse(t, begin, "a property that is not known");
    }
    char text[64], spelled[64];
    snprintf(text, sizeof text, "%.*s", (int)size, name);
    t->at += size + 1;
    if (is_general_category(name, size)) {
        if (t->caseless[t->depth] && name[0] == 'L' && size == 2) {
            return refuse(t, begin, "a property of case where case is ignored");
        }
        return emit_category(t, in_class, negated, text);
    }
    const char *prefix = strcmp(text, "Alphabetic") == 0 ? "" : "sc:";
    snprintf(spelled, sizeof spelled, "\\%c{%s%.40s}", negated ? 'P' : 'p', prefix, text);
    return emit(t, spelled);
}

/* What follows a backslash; at stands after it. *is_set: it stood for several characters, so that
 * inside a class it cannot be the end of a range. */
static mq_status translate_escape(translator *t, bool in_class, bool *is_set) {
    size_t begin = t->at - 1;
    char c = peek(t, 0);
    *is_set = c && strchr("sSdDwWpP", c) != NULL;
    if (c == 'p' || c == 'P') {
        return translate_property(t, in_class);
    }
    if (c == 'x' || c == 'u') {
        return translate_code_point(t);
    }
    t->at++;
    switch (c) {
    case 's':
        return emit(t, in_class ? SPACE_SET : "[" SPACE_SET "]");
    case 'S':
        return emit(t, in_class ? NOT_SPACE_SET : "[^" SPACE_SET "]");
    case 'd':
        return emit_category(t, in_class, false, "Nd");
    case 'D':
        return emit_category(t, in_class, true, "Nd");
    case 'w':
        return emit_word(t, in_class, false);
    case 'W':
        return in_class ? refuse(t, begin, "\\W inside a class") : emit_word(t, false, true);
    case 'n':
        return emit(t, "\\n");
    case 'r':
        return emit(t, "\\r");
    case 't':
        return emit(t, "\\t");
    case 'f':
        return emit(t, "\\f");
    case 'v':
        return emit(t, "\\x{b}");
    case 'a':
        return emit(t, "\\a");
    case 'e':
        return emit(t, "\\e");
    case 'A':
    case 'z':
        if (in_class) {
            return refuse(t, begin, "an escape that is not supported");
        }
        return emit(t, c == 'A' ? "\\A" : "\\z");
    default:
        if (c <= 0 || is_digit(c) || is_ascii_letter(c)) {
            return refuse(t, begin, "an escape that is not supported");
        }
        char text[3] = {'\\', c, '\0'};
        return emit(t, text);
    }
}

static mq_status translate_class(translator *t) {
    size_t begin = t->at++;
    mq_status status = emit(t, "[");
    if (!status && peek(t, 0) == '^') {
        t->at++;
        status = emit(t, "^");
    }
    if (!status && peek(t, 0) == ']') {
        return refuse(t, t->at, "an empty class");
    }
    bool after_set = false, first = true;
    while (!status) {
        char c = peek(t, 0);
        if (t->at == t->size) {
            return refuse(t, begin, "a class that does not end");
        }
        if (c == ']') {
            t->at++;
            return emit(t, "]");
        }
        if (c == '[' || starts(t, "&&")) {
            return refuse(t, t->at, "a class inside a class");
        }
        bool range = c == '-' && !first && peek(t, 1) != ']';
        if (range && (after_set || (peek(t, 1) == '\\' && strchr("sSdDwWpP", peek(t, 2))))) {
            return refuse(t, t->at, "a range that begins or ends with a set");
        }
        t->at++;
        after_set = first = false;
        status = c == '\\' ? translate_escape(t, true, &after_set)
                           : mq_bytes_append(t->out, &c, 1, t->err);
    }
    return status;
}

static mq_status translate_group(translator *t) {
    /* (?i) in the middle of a group binds differently in the two; at the very beginning it is plain
     */
    static const char *const openings[] = {
        "(?:", "(?=", "(?!", "(?<=", "(?<!", "(?>", "(?i:", "(?-i:"};
    size_t begin = t->at;
    if (begin == 0 && starts(t, "(?i)")) {
        t->caseless[0] = true;
        t->at += 4;
        return emit(t, "(?i)");
    }
    const char *opening = "(";
    if (peek(t, 1) == '?' || peek(t, 1) == '*') {
        opening = NULL;
        for (size_t i = 0; i < sizeof openings / sizeof *openings; i++) {
            opening = starts(t, openings[i]) ? openings[i] : opening;
        }
    }
    if (!opening || t->depth == MAX_GROUPS) {
        return refuse(t, begin, opening ? "too many groups" : "a group that is not supported");
    }
    bool caseless = t->caseless[t->depth];
    if (strchr(opening, 'i')) {
        caseless = opening[2] == 'i';
    }
    t->caseless[++t->depth] = caseless;
    t->at += strlen(opening);
    return emit(t, opening);
}

/* {n}, {n,}, {n,m}, {,m}; anything else in braces is literal for Oniguruma. */
static mq_status translate_braces(translator *t) {
    size_t at = 1, digits_before = 0, digits_after = 0;
    while (is_digit(peek(t, at)) && digits_before < 6) {
        at++, digits_before++;
    }
    bool comma = peek(t, at) == ',';
    at += comma ? 1 : 0;
    while (comma && is_digit(peek(t, at)) && digits_after < 6) {
        at++, digits_after++;
    }
    if (peek(t, at) != '}' || digits_before + digits_after == 0) {
        t->at++;
        return emit(t, "\\{");
    }
    at++;
    char next = peek(t, at);
    if (next == '+' || (next == '?' && !comma)) {
        return refuse(t, t->at, "a quantifier after a quantifier");
    }
    mq_status status = emit(t, digits_before ? "{" : "{0");
    if (!status) {
        status = mq_bytes_append(t->out, t->regex + t->at + 1, at - 1, t->err);
    }
    t->at += at;
    return status;
}

mq_status mq_regex_translate(mq_bytes *out, const char *regex, mq_error *err) {
    translator t = {.regex = regex, .size = strlen(regex), .out = out, .err = err};
    mq_status status = MQ_OK;
    while (t.at < t.size && !status) {
        char c = regex[t.at];
        bool is_set;
        if (c == '\\') {
            t.at++;
            status = translate_escape(&t, false, &is_set);
        } else if (c == '[') {
            status = translate_class(&t);
        } else if (c == '(') {
            status = translate_group(&t);
        } else if (c == '{') {
            status = translate_braces(&t);
        } else {
            if (c == ')' && t.depth == 0) {
                return refuse(&t, t.at, "a parenthesis that closes nothing");
            }
            t.depth -= c == ')' ? 1 : 0;
            t.at++;
            status = mq_bytes_append(out, &c, 1, err);
        }
    }
    return status;
}
