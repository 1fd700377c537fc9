/* The parts of a tokenizer and how they hand text to each other.
 *
 * Encoding goes depth first: the text is cut at the added tokens that are matched as written, each
 * piece is normalized, cut at the other added tokens, passed through the pre-tokenizer's steps, and
 * each word that comes out is turned into ids at once. No list of pieces is ever built, and memory
 * does not grow with their number. */
#ifndef MQ_TEXT_TOK_INTERNAL_H
#define MQ_TEXT_TOK_INTERNAL_H

#include "base/context.h"
#include "matquant/tokenizer.h"
#include "text/tok_pattern.h"
#include "text/tok_vocab.h"
#include "text/utf8.h"

/* Inside a class: what the \\w of Rust's regular expressions is, which `tokenizers` uses for
 * single_word and Whitespace (UTS 18, with Join_Control). */
#define MQ_WORD_SET "\\p{Alphabetic}\\p{L}\\p{M}\\p{Nd}\\p{Pc}\\x{200c}\\x{200d}"

#define MQ_MAX_STEPS 32         /* of a normalizer, a pre-tokenizer, a decoder */
#define MQ_MAX_TEXT (1UL << 30) /* bytes that one call encodes; positions in words are 32 bits */

/* --- normalizers and pre-tokenizers ----------------------------------------------------------- */

typedef enum mq_split_behavior {
    MQ_SPLIT_REMOVED,
    MQ_SPLIT_ISOLATED,
    MQ_SPLIT_MERGED_WITH_PREVIOUS,
    MQ_SPLIT_MERGED_WITH_NEXT,
    MQ_SPLIT_CONTIGUOUS
} mq_split_behavior;

typedef enum mq_step_kind {
    MQ_STEP_PREPEND, /* puts content before the text; not if skip_if_present is set and the text
                        already begins with it; with first_only, only before the first piece
                        of the whole text */
    MQ_STEP_REPLACE, /* each match of pattern by content */
    MQ_STEP_UNICODE_FORM, /* NFC, NFD, NFKC, NFKD: form_options of utf8proc */
    MQ_STEP_LOWERCASE,
    MQ_STEP_STRIP,      /* white space at the left, at the right */
    MQ_STEP_BYTE_CHARS, /* each byte by the printable character that stands for it in GPT-2's
                           vocabularies */
    MQ_STEP_SPLIT       /* pre-tokenizers only */
} mq_step_kind;

typedef struct mq_step {
    mq_step_kind kind;
    mq_pattern pattern;
    char *content; /* mq_free */
    size_t content_size;
    bool skip_if_present, first_only;
    int form_options;
    bool strip_left, strip_right;
    mq_split_behavior behavior;
    bool invert;
} mq_step;

typedef struct mq_steps {
    mq_step items[MQ_MAX_STEPS];
    size_t count;
} mq_steps;

void mq_steps_free(mq_steps *steps);

/* Replaces the contents of out by what the step (not a split) makes of text; `first`: the whole
 * text begins here. */
mq_status mq_step_transform(mq_bytes *out, const mq_step *step, mq_matcher *matcher,
                            const char *text, size_t size, bool first, mq_error *err);

/* --- added tokens ----------------------------------------------------------------------------- */

typedef struct mq_added_token {
    char *content; /* mq_free */
    size_t content_size;
    const char *spelling; /* content, or what the normalizer makes of it: decoding gives that */
    size_t spelling_size;
    int32_t id;
    bool special, normalized, lstrip, rstrip, single_word;
} mq_added_token;

/* Spellings sorted by bytes, searched by narrowing the range that shares the text's beginning. */
typedef struct mq_spelling {
    const char *text;
    size_t size;
    uint32_t token; /* index in added tokens */
} mq_spelling;

typedef struct mq_spellings {
    mq_spelling *items;
    size_t count;
    uint32_t first[257]; /* items whose first byte is b are [first[b], first[b + 1]) */
    mq_bytes text;       /* normalized spellings, when they are not the tokens' own */
} mq_spellings;

typedef struct mq_added {
    mq_added_token *tokens;
    size_t count;
    mq_spellings as_written;    /* of those with normalized = false */
    mq_spellings as_normalized; /* of the others, normalized */
    mq_pattern word; /* one character of a word; compiled when a single_word token needs it */
} mq_added;

/* --- decoders --------------------------------------------------------------------------------- */

typedef enum mq_decoder_kind {
    MQ_DECODE_BYTE_LEVEL,
    MQ_DECODE_REPLACE,
    MQ_DECODE_BYTE_FALLBACK,
    MQ_DECODE_FUSE,
    MQ_DECODE_STRIP,
    MQ_DECODE_METASPACE
} mq_decoder_kind;

typedef struct mq_decoder {
    mq_decoder_kind kind;
    mq_pattern pattern;
    char *content; /* of replace, strip; the replacement of metaspace */
    size_t content_size;
    size_t start, stop;    /* of strip: at most so many at each end */
    bool drop_first_space; /* of metaspace: it was prepended */
} mq_decoder;

/* --- the whole -------------------------------------------------------------------------------- */

struct mq_tokenizer {
    mq_vocab vocab; /* the model's; added tokens may lie outside */
    mq_merges merges;
    bool byte_fallback, fuse_unk, ignore_merges;
    char *unk_token;       /* NULL: none */
    int32_t unk_id;        /* -1: none, or not in the vocabulary */
    int32_t byte_ids[256]; /* of "<0x00>" and so on, -1: none */
    mq_steps normalizer;
    mq_steps pre_tokenizer;
    mq_added added;
    int32_t *added_index;    /* [vocab_size] index of the added token with that id, -1: none */
    int32_t *before, *after; /* ids that the template puts around the text */
    size_t before_count, after_count;
    bool has_decoder; /* without one, tokens are joined by spaces */
    mq_decoder decoders[MQ_MAX_STEPS];
    size_t decoder_count;
    size_t vocab_size; /* highest id + 1 */
    int32_t bos;
};

/* What one call of encode works with. */
typedef struct mq_encoder {
    const mq_tokenizer *tokenizer;
    const mq_context *context; /* may be NULL; asked at every word whether to stop */
    mq_error *err;
    mq_matcher matcher;
    mq_bytes normalized[2];
    mq_bytes pieces[MQ_MAX_STEPS]; /* what each transforming step of the pre-tokenizer made */
    struct mq_bpe *bpe;
    int32_t *ids; /* mq_free */
    size_t count, capacity;
} mq_encoder;

/* MQ_ERR_INPUT: a text of so many bytes is longer than MQ_MAX_TEXT. */
mq_status mq_tok_check_length(size_t size, mq_error *err);

/* As mq_tokenizer_encode (matquant/tokenizer.h); MQ_ERR_INTERRUPTED when context says so. */
mq_status mq_tokenizer_encode_in(int32_t **ids, size_t *count, const mq_tokenizer *tokenizer,
                                 const char *text, size_t size, bool add_special,
                                 const mq_context *context, mq_error *err);

mq_status mq_encoder_push(mq_encoder *encoder, int32_t id);

/* Runs the normalizer over size bytes; *out and *out_size lie in encoder->normalized or are the
 * text itself. */
mq_status mq_normalize(const char **out, size_t *out_size, mq_bytes buffers[2],
                       const mq_steps *normalizer, mq_matcher *matcher, const char *text,
                       size_t size, mq_error *err);

/* Cuts well-formed text at the added tokens and encodes what lies between them. */
mq_status mq_encode_text(mq_encoder *encoder, const char *text, size_t size);

/* One piece of normalized text between added tokens: pre-tokenizer, then BPE. */
mq_status mq_encode_piece(mq_encoder *encoder, const char *text, size_t size, bool first);

/* One word: byte-pair encoding (tok_bpe.c). */
mq_status mq_bpe_new(struct mq_bpe **out, size_t text_size, mq_error *err);
void mq_bpe_free(struct mq_bpe *bpe); /* NULL allowed */
mq_status mq_bpe_encode(mq_encoder *encoder, const char *word, size_t size);

/* Builds the search structures of tokenizer->added.tokens; needs the normalizer. */
mq_status mq_added_build(mq_tokenizer *tokenizer, mq_error *err);
void mq_added_free(mq_added *added);

/* The character that stands for a byte in byte-level vocabularies (Radford et al. 2019, their
 * encoder.py), and back: -1 when the character stands for none. */
uint32_t mq_byte_to_char(unsigned char byte);
int mq_char_to_byte(uint32_t code_point);

/* --- loading ---------------------------------------------------------------------------------- */

/* Errors name file and field, as "pre_tokenizer.pretokenizers[1].type". */
typedef struct mq_tok_loader {
    mq_tokenizer *tokenizer;
    const char *file;
    mq_error *err;
} mq_tok_loader;

struct cJSON;

mq_status mq_tok_load(mq_tokenizer *tokenizer, const char *folder, mq_error *err);
mq_status mq_tok_load_model(mq_tok_loader *loader, const struct cJSON *model);
mq_status mq_tok_load_added(mq_tok_loader *loader, const struct cJSON *list);
mq_status mq_tok_load_normalizer(mq_tok_loader *loader, const struct cJSON *value,
                                 const char *where);
mq_status mq_tok_load_pre_tokenizer(mq_tok_loader *loader, const struct cJSON *value,
                                    const char *where);
mq_status mq_tok_load_post_processor(mq_tok_loader *loader, const struct cJSON *value,
                                     const char *where);
mq_status mq_tok_load_decoder(mq_tok_loader *loader, const struct cJSON *value, const char *where);

/* What the loaders share. A field that `known` (ended by NULL) does not list is refused, and one
 * that is there twice. */
mq_status mq_tok_refuse(mq_tok_loader *loader, const char *where, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
mq_status mq_tok_check_fields(mq_tok_loader *loader, const struct cJSON *object, const char *where,
                              const char *const *known);
/* status, after a function that knows neither file nor field: what it says in inner of an
 * MQ_ERR_INPUT with both, of anything else as it is. */
mq_status mq_tok_in_field(mq_tok_loader *loader, mq_status status, const char *where,
                          const mq_error *inner);
/* The member of that name, NULL: none; refused where there are two. For objects whose other fields
 * have any names, or do not matter. */
mq_status mq_tok_member(const struct cJSON **out, mq_tok_loader *loader, const struct cJSON *object,
                        const char *where, const char *key);
mq_status mq_tok_type(const char **out, mq_tok_loader *loader, const struct cJSON *object,
                      const char *where);
mq_status mq_tok_bool(bool *out, mq_tok_loader *loader, const struct cJSON *object,
                      const char *where, const char *key, bool required);
mq_status mq_tok_string(const char **out, mq_tok_loader *loader, const struct cJSON *object,
                        const char *where, const char *key);
/* A string of exactly one character. */
mq_status mq_tok_char(const char **out, mq_tok_loader *loader, const struct cJSON *object,
                      const char *where, const char *key);
mq_status mq_tok_size(size_t *out, mq_tok_loader *loader, const struct cJSON *object,
                      const char *where, const char *key);
/* pattern: {"String": ...} or {"Regex": ...}. */
mq_status mq_tok_pattern(mq_pattern *out, mq_tok_loader *loader, const struct cJSON *object,
                         const char *where);
/* Metaspace's prepend_scheme: "always", "first" or "never", the object's or static. Without one it
 * is what add_prefix_space says, as older files spell "always" and "never"; refused where the two
 * contradict each other. */
mq_status mq_tok_scheme(const char **out, mq_tok_loader *loader, const struct cJSON *object,
                        const char *where);
/* The members of a Sequence, one after the other; key names the list. */
typedef mq_status mq_tok_load_fn(mq_tok_loader *loader, const struct cJSON *value,
                                 const char *where);
mq_status mq_tok_load_list(mq_tok_loader *loader, const struct cJSON *value, const char *where,
                           const char *key, mq_tok_load_fn *load);
/* A copy of text into *out. */
mq_status mq_tok_copy(char **out, size_t *size, mq_tok_loader *loader, const char *text);

#endif
