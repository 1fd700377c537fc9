/* Loading "normalizer" and "pre_tokenizer" into lists of steps. */
#include <stdio.h>
#include <string.h>
#include <utf8proc.h>

#include "base/json.h"
#include "text/tok_internal.h"

/* The pattern of GPT-2's encoder.py, which ByteLevel splits with. */
#define GPT2_REGEX                                                                                 \
    "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+"
/* Punctuation that came after Unicode 8, whose tables the step Punctuation has. */
#define NEWER_PUNCTUATION                                                                          \
    "\\x{61d}\\x{9fd}\\x{a76}\\x{c77}\\x{c84}\\x{1b4e}-\\x{1b4f}\\x{1b7d}-\\x{1b7f}"               \
    "\\x{2e43}-\\x{2e4f}\\x{2e52}-\\x{2e5d}\\x{10d6e}\\x{10ead}\\x{10f55}-\\x{10f59}"              \
    "\\x{10f86}-\\x{10f89}\\x{113d4}-\\x{113d5}\\x{113d7}-\\x{113d8}\\x{1144b}-\\x{1144f}"         \
    "\\x{1145a}-\\x{1145b}\\x{1145d}\\x{11660}-\\x{1166c}\\x{116b9}\\x{1183b}"                     \
    "\\x{11944}-\\x{11946}\\x{119e2}\\x{11a3f}-\\x{11a46}\\x{11a9a}-\\x{11a9c}"                    \
    "\\x{11a9e}-\\x{11aa2}\\x{11b00}-\\x{11b09}\\x{11be1}\\x{11c41}-\\x{11c45}"                    \
    "\\x{11c70}-\\x{11c71}\\x{11ef7}-\\x{11ef8}\\x{11f43}-\\x{11f4f}\\x{11fff}"                    \
    "\\x{12ff1}-\\x{12ff2}\\x{16d6d}-\\x{16d6f}\\x{16e97}-\\x{16e9a}\\x{16fe2}\\x{1e5ff}"          \
    "\\x{1e95e}-\\x{1e95f}"
/* What Unicode 8 called punctuation, and what ASCII does. */
#define PUNCTUATION_REGEX "(?![" NEWER_PUNCTUATION "])[\\p{P}\\x{166d}\\x{111c9}$+<=>\\^`|~]"
/* Rust's char::is_numeric: N, of Unicode 17. */
#define NUMERIC_REGEX "[\\p{N}\\x{11de0}-\\x{11de9}\\x{16ff4}-\\x{16ff6}]"
#define WORD_OR_NOT_REGEX "[" MQ_WORD_SET "]+|[^" MQ_WORD_SET "\\s]+"

static mq_status add_step(mq_step **out, mq_tok_loader *loader, mq_steps *steps, mq_step_kind kind,
                          const char *where) {
    if (steps->count == MQ_MAX_STEPS) {
        return mq_tok_refuse(loader, where, "more than %d steps", MQ_MAX_STEPS);
    }
    *out = &steps->items[steps->count++];
    (*out)->kind = kind;
    return MQ_OK;
}

static mq_status add_replace(mq_tok_loader *loader, mq_steps *steps, const char *literal,
                             const char *content, const char *where) {
    mq_step *step = NULL;
    mq_status status = add_step(&step, loader, steps, MQ_STEP_REPLACE, where);
    status =
        status ? status : mq_pattern_literal(&step->pattern, literal, strlen(literal), loader->err);
    return status ? status : mq_tok_copy(&step->content, &step->content_size, loader, content);
}

static mq_status add_prepend(mq_tok_loader *loader, mq_steps *steps, const char *content,
                             bool skip_if_present, bool first_only, const char *where) {
    mq_step *step = NULL;
    mq_status status = add_step(&step, loader, steps, MQ_STEP_PREPEND, where);
    if (status) {
        return status;
    }
    step->skip_if_present = skip_if_present;
    step->first_only = first_only;
    return mq_tok_copy(&step->content, &step->content_size, loader, content);
}

static mq_status add_regex_split(mq_tok_loader *loader, const char *regex,
                                 mq_split_behavior behavior, bool invert, const char *where) {
    mq_step *step = NULL;
    mq_status status =
        add_step(&step, loader, &loader->tokenizer->pre_tokenizer, MQ_STEP_SPLIT, where);
    if (status) {
        return status;
    }
    step->behavior = behavior;
    step->invert = invert;
    return mq_pattern_regex(&step->pattern, regex, loader->err);
}

static mq_status add_class_split(mq_tok_loader *loader, mq_pattern_kind kind,
                                 mq_split_behavior behavior, const char *where) {
    mq_step *step = NULL;
    mq_status status =
        add_step(&step, loader, &loader->tokenizer->pre_tokenizer, MQ_STEP_SPLIT, where);
    if (!status) {
        step->pattern.kind = kind;
        step->behavior = behavior;
    }
    return status;
}

/* --- normalizers ------------------------------------------------------------------------------ */

static mq_status load_prepend(mq_tok_loader *loader, const cJSON *value, const char *where) {
    static const char *const known[] = {"type", "prepend", NULL};
    const char *content = NULL;
    mq_status status = mq_tok_check_fields(loader, value, where, known);
    status = status ? status : mq_tok_string(&content, loader, value, where, "prepend");
    return status
               ? status
               : add_prepend(loader, &loader->tokenizer->normalizer, content, false, false, where);
}

static mq_status load_replace(mq_tok_loader *loader, const cJSON *value, const char *where) {
    static const char *const known[] = {"type", "pattern", "content", NULL};
    const char *content = NULL;
    mq_step *step = NULL;
    mq_status status = mq_tok_check_fields(loader, value, where, known);
    status = status ? status : mq_tok_string(&content, loader, value, where, "content");
    status = status
                 ? status
                 : add_step(&step, loader, &loader->tokenizer->normalizer, MQ_STEP_REPLACE, where);
    status = status ? status : mq_tok_pattern(&step->pattern, loader, value, where);
    return status ? status : mq_tok_copy(&step->content, &step->content_size, loader, content);
}

static mq_status load_strip(mq_tok_loader *loader, const cJSON *value, const char *where) {
    static const char *const known[] = {"type", "strip_left", "strip_right", NULL};
    mq_step *step = NULL;
    mq_status status = mq_tok_check_fields(loader, value, where, known);
    status = status ? status
                    : add_step(&step, loader, &loader->tokenizer->normalizer, MQ_STEP_STRIP, where);
    status =
        status ? status : mq_tok_bool(&step->strip_left, loader, value, where, "strip_left", true);
    return status ? status
                  : mq_tok_bool(&step->strip_right, loader, value, where, "strip_right", true);
}

static mq_status load_plain_normalizer(mq_tok_loader *loader, const cJSON *value, const char *where,
                                       mq_step_kind kind, int form_options) {
    static const char *const known[] = {"type", NULL};
    mq_step *step = NULL;
    mq_status status = mq_tok_check_fields(loader, value, where, known);
    status = status ? status : add_step(&step, loader, &loader->tokenizer->normalizer, kind, where);
    if (!status) {
        step->form_options = form_options;
    }
    return status;
}

mq_status mq_tok_load_normalizer(mq_tok_loader *loader, const cJSON *value, const char *where) {
    static const struct {
        const char *name;
        int options;
    } forms[] = {{"NFC", UTF8PROC_STABLE | UTF8PROC_COMPOSE},
                 {"NFD", UTF8PROC_STABLE | UTF8PROC_DECOMPOSE},
                 {"NFKC", UTF8PROC_STABLE | UTF8PROC_COMPOSE | UTF8PROC_COMPAT},
                 {"NFKD", UTF8PROC_STABLE | UTF8PROC_DECOMPOSE | UTF8PROC_COMPAT}};
    if (!value || cJSON_IsNull(value)) {
        return MQ_OK;
    }
    const char *type = NULL;
    mq_status status = mq_tok_type(&type, loader, value, where);
    if (status) {
        return status;
    }
    for (size_t i = 0; i < sizeof forms / sizeof *forms; i++) {
        if (strcmp(type, forms[i].name) == 0) {
            return load_plain_normalizer(loader, value, where, MQ_STEP_UNICODE_FORM,
                                         forms[i].options);
        }
    }
    if (strcmp(type, "Sequence") == 0) {
        return mq_tok_load_list(loader, value, where, "normalizers", mq_tok_load_normalizer);
    }
    if (strcmp(type, "Prepend") == 0) {
        return load_prepend(loader, value, where);
    }
    if (strcmp(type, "Replace") == 0) {
        return load_replace(loader, value, where);
    }
    if (strcmp(type, "Lowercase") == 0) {
        return load_plain_normalizer(loader, value, where, MQ_STEP_LOWERCASE, 0);
    }
    if (strcmp(type, "Strip") == 0) {
        return load_strip(loader, value, where);
    }
    return mq_tok_refuse(
        loader, where,
        "the type \"%.64s\" is not supported (known: Sequence, Prepend, Replace, NFC, NFD, NFKC, "
        "NFKD, Lowercase, Strip)",
        type);
}

/* --- pre-tokenizers --------------------------------------------------------------------------- */

static mq_status load_behavior(mq_split_behavior *out, mq_tok_loader *loader, const cJSON *value,
                               const char *where) {
    static const char *const names[] = {"Removed", "Isolated", "MergedWithPrevious",
                                        "MergedWithNext", "Contiguous"};
    static const mq_split_behavior behaviors[] = {MQ_SPLIT_REMOVED, MQ_SPLIT_ISOLATED,
                                                  MQ_SPLIT_MERGED_WITH_PREVIOUS,
                                                  MQ_SPLIT_MERGED_WITH_NEXT, MQ_SPLIT_CONTIGUOUS};
    const char *name = NULL;
    mq_status status = mq_tok_string(&name, loader, value, where, "behavior");
    for (size_t i = 0; i < sizeof names / sizeof *names && !status; i++) {
        if (strcmp(name, names[i]) == 0) {
            *out = behaviors[i];
            return MQ_OK;
        }
    }
    return status ? status
                  : mq_tok_refuse(loader, where, "the behavior \"%.64s\" is not known", name);
}

static mq_status load_byte_level(mq_tok_loader *loader, const cJSON *value, const char *where) {
    static const char *const known[] = {"type", "add_prefix_space", "trim_offsets", "use_regex",
                                        NULL};
    mq_steps *steps = &loader->tokenizer->pre_tokenizer;
    bool prefix = false, regex = true;
    mq_step *step = NULL;
    mq_status status = mq_tok_check_fields(loader, value, where, known);
    status = status ? status : mq_tok_bool(&prefix, loader, value, where, "add_prefix_space", true);
    status = status ? status : mq_tok_bool(&regex, loader, value, where, "use_regex", false);
    if (!status && prefix) {
        status = add_prepend(loader, steps, " ", true, false, where);
    }
    if (!status && regex) {
        status = add_regex_split(loader, GPT2_REGEX, MQ_SPLIT_ISOLATED, false, where);
    }
    return status ? status : add_step(&step, loader, steps, MQ_STEP_BYTE_CHARS, where);
}

static mq_status load_split(mq_tok_loader *loader, const cJSON *value, const char *where) {
    static const char *const known[] = {"type", "pattern", "behavior", "invert", NULL};
    mq_step *step = NULL;
    mq_status status = mq_tok_check_fields(loader, value, where, known);
    status = status
                 ? status
                 : add_step(&step, loader, &loader->tokenizer->pre_tokenizer, MQ_STEP_SPLIT, where);
    status = status ? status : load_behavior(&step->behavior, loader, value, where);
    status = status ? status : mq_tok_bool(&step->invert, loader, value, where, "invert", true);
    return status ? status : mq_tok_pattern(&step->pattern, loader, value, where);
}

static mq_status load_digits(mq_tok_loader *loader, const cJSON *value, const char *where) {
    static const char *const known[] = {"type", "individual_digits", NULL};
    bool individual = false;
    mq_status status = mq_tok_check_fields(loader, value, where, known);
    status =
        status ? status : mq_tok_bool(&individual, loader, value, where, "individual_digits", true);
    mq_split_behavior behavior = individual ? MQ_SPLIT_ISOLATED : MQ_SPLIT_CONTIGUOUS;
    return status ? status : add_regex_split(loader, NUMERIC_REGEX, behavior, false, where);
}

/* Whether a text may begin elsewhere once it is normalized. */
static bool takes_beginning(const mq_steps *normalizer) {
    for (size_t i = 0; i < normalizer->count; i++) {
        const mq_step *step = &normalizer->items[i];
        if ((step->kind == MQ_STEP_STRIP && step->strip_left) ||
            (step->kind == MQ_STEP_REPLACE && step->content_size == 0)) {
            return true;
        }
    }
    return false;
}

static mq_status load_metaspace(mq_tok_loader *loader, const cJSON *value, const char *where) {
    static const char *const known[] = {
        "type", "replacement", "prepend_scheme", "add_prefix_space", "split", "str_rep", NULL};
    mq_steps *steps = &loader->tokenizer->pre_tokenizer;
    const char *replacement = NULL, *scheme = NULL;
    bool splits = true;
    mq_step *step = NULL;
    mq_status status = mq_tok_check_fields(loader, value, where, known);
    status = status ? status : mq_tok_char(&replacement, loader, value, where, "replacement");
    status = status ? status : mq_tok_scheme(&scheme, loader, value, where);
    status = status ? status : mq_tok_bool(&splits, loader, value, where, "split", false);
    if (!status && strcmp(scheme, "first") == 0 &&
        takes_beginning(&loader->tokenizer->normalizer)) {
        status = mq_tok_refuse(loader, where,
                               "the prepend_scheme \"first\" is not supported beside a normalizer "
                               "that may take away the beginning of a text");
    }
    status = status ? status : add_replace(loader, steps, " ", replacement, where);
    if (!status && strcmp(scheme, "never") != 0) {
        status = add_prepend(loader, steps, replacement, true, strcmp(scheme, "first") == 0, where);
    }
    if (status || !splits) {
        return status;
    }
    status = add_step(&step, loader, steps, MQ_STEP_SPLIT, where);
    if (!status) {
        step->behavior = MQ_SPLIT_MERGED_WITH_NEXT;
        status = mq_pattern_literal(&step->pattern, replacement, strlen(replacement), loader->err);
    }
    return status;
}

static mq_status load_punctuation(mq_tok_loader *loader, const cJSON *value, const char *where) {
    static const char *const known[] = {"type", "behavior", NULL};
    mq_split_behavior behavior = MQ_SPLIT_ISOLATED;
    mq_status status = mq_tok_check_fields(loader, value, where, known);
    if (!status && cJSON_HasObjectItem(value, "behavior")) {
        status = load_behavior(&behavior, loader, value, where);
    }
    return status ? status : add_regex_split(loader, PUNCTUATION_REGEX, behavior, false, where);
}

static mq_status load_whitespace(mq_tok_loader *loader, const cJSON *value, const char *where) {
    static const char *const known[] = {"type", NULL};
    mq_status status = mq_tok_check_fields(loader, value, where, known);
    return status ? status
                  : add_regex_split(loader, WORD_OR_NOT_REGEX, MQ_SPLIT_REMOVED, true, where);
}

static mq_status load_whitespace_split(mq_tok_loader *loader, const cJSON *value,
                                       const char *where) {
    static const char *const known[] = {"type", NULL};
    mq_status status = mq_tok_check_fields(loader, value, where, known);
    return status ? status
                  : add_class_split(loader, MQ_PATTERN_WHITE_SPACE, MQ_SPLIT_REMOVED, where);
}

mq_status mq_tok_load_pre_tokenizer(mq_tok_loader *loader, const cJSON *value, const char *where) {
    static const struct {
        const char *name;
        mq_tok_load_fn *load;
    } known[] = {{"ByteLevel", load_byte_level},
                 {"Split", load_split},
                 {"Digits", load_digits},
                 {"Metaspace", load_metaspace},
                 {"Punctuation", load_punctuation},
                 {"Whitespace", load_whitespace},
                 {"WhitespaceSplit", load_whitespace_split}};
    if (!value || cJSON_IsNull(value)) {
        return MQ_OK;
    }
    const char *type = NULL;
    mq_status status = mq_tok_type(&type, loader, value, where);
    if (status) {
        return status;
    }
    if (strcmp(type, "Sequence") == 0) {
        return mq_tok_load_list(loader, value, where, "pretokenizers", mq_tok_load_pre_tokenizer);
    }
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        if (strcmp(type, known[i].name) == 0) {
            return known[i].load(loader, value, where);
        }
    }
    return mq_tok_refuse(loader, where,
                         "the type \"%.64s\" is not supported (known: Sequence, ByteLevel, Split, "
                         "Digits, Metaspace, "
                         "Punctuation, Whitespace, WhitespaceSplit)",
                         type);
}
