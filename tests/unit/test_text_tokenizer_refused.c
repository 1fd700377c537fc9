/* layer: text */
/* Tokenizer files that are refused, and what the errors say. */
#include "tokenizer_parts.h"

typedef struct refusal {
    parts p;
    const char *message; /* part of it */
} refusal;

static void check_refusals(temporary *folder, const refusal *refusals, size_t count) {
    for (size_t i = 0; i < count; i++) {
        mq_tokenizer *tokenizer = NULL;
        mq_error err = {0};
        write_tokenizer(folder, &refusals[i].p);
        mq_status status = mq_tokenizer_open(&tokenizer, folder->path, &err);
        if (status != MQ_ERR_INPUT || !strstr(err.message, refusals[i].message)) {
            print_error("refusal %zu: expected \"%s\", got %d \"%s\"\n", i, refusals[i].message,
                        (int)status, err.message);
        }
        assert_int_equal(status, MQ_ERR_INPUT);
        assert_non_null(strstr(err.message, refusals[i].message));
        assert_null(strchr(err.message, '\n'));
        assert_non_null(strstr(err.file, "tokenizer.json"));
        assert_null(tokenizer);
    }
}

#define CHECK_REFUSALS(state, list) check_refusals(*(state), list, sizeof(list) / sizeof *(list))

static void test_refused_models(void **state) {
    static const refusal list[] = {
        {{.model = "null"}, "model: not an object"},
        {{.model = "{\"type\":\"Unigram\",\"vocab\":[]}"}, "the type \"Unigram\" is not supported"},
        {{.model = "{\"type\":\"BPE\"," VOCAB "}"}, "model.merges: missing"},
        {{.model = "{\"type\":\"BPE\"," MERGES "}"}, "model.vocab: missing"},
        {{.model = "{" VOCAB "," MERGES ",\"dropout\":0.1}"}, "dropout"},
        {{.model = "{" VOCAB "," MERGES ",\"continuing_subword_prefix\":\"##\"}"},
         "continuing_subword_prefix"},
        {{.model = "{" VOCAB "," MERGES ",\"end_of_word_suffix\":\"</w>\"}"}, "end_of_word_suffix"},
        {{.model = "{" VOCAB "," MERGES ",\"unk_token\":7}"}, "\"unk_token\" is not a string"},
        {{.model = "{" VOCAB "," MERGES ",\"fuse_unk\":1}"},
         "\"fuse_unk\" is neither true nor false"},
        {{.model = "{" VOCAB "," MERGES ",\"novel\":1}"}, "the field \"novel\" is not known"},
        {{.model = "{\"vocab\":{\"a\":0,\"b\":0}," MERGES "}"}, "have the id 0"},
        {{.model = "{\"vocab\":{\"a\":0,\"a\":1}," MERGES "}"}, "\"a\" is there twice"},
        {{.model = "{\"vocab\":{\"a\":-1}," MERGES "}"}, "the id of \"a\" is not a whole number"},
        {{.model = "{\"vocab\":{\"a\":1.5}," MERGES "}"}, "the id of \"a\" is not a whole number"},
        {{.model = "{\"vocab\":{\"a\":1e18}," MERGES "}"}, "the id of \"a\" is not a whole number"},
        {{.model = "{\"vocab\":{\"a\":\"0\"}," MERGES "}"},
         "the id of \"a\" is not a whole number"},
        {{.model = "{\"vocab\":{\"a\\u0000\":0}," MERGES "}"}, "U+0000"},
        {{.model = "{" VOCAB ",\"merges\":[\"a b\",\"a b\"]}"},
         "model.merges[1]: the pair is there twice"},
        {{.model = "{" VOCAB ",\"merges\":[\"a z\"]}"},
         "model.merges[0]: \"z\" is not in the vocabulary"},
        {{.model = "{" VOCAB ",\"merges\":[\"b a\"]}"},
         "model.merges[0]: \"ba\" is not in the vocabulary"},
        {{.model = "{" VOCAB ",\"merges\":[\"ab\"]}"}, "model.merges[0]: not two tokens"},
        {{.model = "{" VOCAB ",\"merges\":[\"a b c\"]}"}, "model.merges[0]: not two tokens"},
        {{.model = "{" VOCAB ",\"merges\":[[\"a\",\"b\",\"c\"]]}"},
         "model.merges[0]: not two tokens"},
        {{.model = "{" VOCAB ",\"merges\":[[\"a\",1]]}"}, "model.merges[0]: not two tokens"},
        {{.model = "{" VOCAB ",\"merges\":{}}"}, "model.merges: not a list"},
    };
    CHECK_REFUSALS(state, list);
}

#define NORMALIZED                                                                                 \
    "\"single_word\":false,\"lstrip\":false,\"rstrip\":false,\"normalized\":true,\"special\":true"

static void test_refused_added_tokens(void **state) {
    static const refusal list[] = {
        {{.added = "{}"}, "added_tokens: not a list"},
        {{.added = "[7]"}, "added_tokens[0]: not an object"},
        {{.added = "[{\"id\":0,\"content\":\"a\"}]"},
         "added_tokens[0]: \"single_word\" is missing"},
        {{.added = "[{\"id\":1,\"content\":\"a\"," FLAGS "}]"}, "contradicts model.vocab"},
        {{.added = "[{\"id\":1,\"content\":\"<y>\"," FLAGS "}]"}, "contradicts model.vocab"},
        {{.added = "[{\"id\":9,\"content\":\"\"," FLAGS "}]"}, "the content is empty"},
        {{.added = "[{\"id\":99999999,\"content\":\"<y>\"," FLAGS "}]"}, "is above"},
        {{.added = "[{\"id\":-1,\"content\":\"<y>\"," FLAGS "}]"}, "\"id\" is not a whole number"},
        {{.added = "[{\"id\":9,\"content\":\"<y>\"," FLAGS "},{\"id\":10,\"content\":\"<y>\"," FLAGS
                   "}]"},
         "is there twice"},
        /* Ids that the tokenizers package passes over: of the first (a gap), of one that comes too
         * late (another order), and above a hole in the vocabulary. */
        {{.added = "[{\"id\":12,\"content\":\"<y>\"," FLAGS "}]"},
         "added_tokens[0]: \"<y>\" has the id 12, but the tokenizers package would give it 9"},
        {{.added = "[{\"id\":9,\"content\":\"<y>\"," FLAGS "},{\"id\":9,\"content\":\"<z>\"," FLAGS
                   "}]"},
         "added_tokens[1]: \"<z>\" has the id 9, but the tokenizers package would give it 10"},
        {{.model = "{\"vocab\":{\"a\":0,\"b\":3},\"merges\":[]}",
          .added = "[{\"id\":4,\"content\":\"<y>\"," FLAGS "}]"},
         "\"<y>\" has the id 4, but the tokenizers package would give it 2"},
        {{.added = "[{\"id\":0,\"content\":\" \"," NORMALIZED "}]",
          .normalizer = "{\"type\":\"Strip\",\"strip_left\":true,\"strip_right\":true}",
          .model = "{\"vocab\":{},\"merges\":[]}"},
         "nothing is left"},
        {{.added = "[{\"id\":9,\"content\":\"<Y>\"," NORMALIZED
                   "},{\"id\":10,\"content\":\"<y>\"," NORMALIZED "}]",
          .normalizer = "{\"type\":\"Lowercase\"}"},
         "the added tokens \"<Y>\" and \"<y>\" are the same once they are normalized"},
    };
    CHECK_REFUSALS(state, list);
}

#define FIRST_METASPACE                                                                            \
    "{\"type\":\"Metaspace\",\"replacement\":\"_\",\"prepend_scheme\":\"first\"}"

static void test_refused_steps(void **state) {
    static const refusal list[] = {
        {{.normalizer = "[]"}, "normalizer: not an object"},
        {{.normalizer = "{}"}, "normalizer: \"type\" is missing"},
        {{.normalizer = "{\"type\":\"Precompiled\"}"},
         "normalizer: the type \"Precompiled\" is not supported"},
        {{.normalizer =
              "{\"type\":\"Sequence\",\"normalizers\":[{\"type\":\"NFC\"},{\"type\":\"Nmt\"}]}"},
         "normalizer.normalizers[1]: the type \"Nmt\""},
        {{.normalizer = "{\"type\":\"Prepend\"}"}, "\"prepend\" is missing"},
        {{.normalizer = "{\"type\":\"Replace\",\"content\":\"x\"}"}, "\"pattern\" is missing"},
        {{.normalizer = "{\"type\":\"Replace\",\"content\":\"x\",\"pattern\":{\"String\":\"\"}}"},
         "an empty pattern"},
        {{.normalizer = "{\"type\":\"Replace\",\"content\":\"x\",\"pattern\":{\"Glob\":\"*\"}}"},
         "\"Glob\""},
        {{.pre_tokenizer = "{\"type\":\"BertPreTokenizer\"}"},
         "the type \"BertPreTokenizer\" is not supported"},
        {{.pre_tokenizer = "{\"type\":\"ByteLevel\"}"}, "\"add_prefix_space\" is missing"},
        {{.pre_tokenizer = "{\"type\":\"Digits\",\"individual_digits\":true,\"x\":1}"},
         "the field \"x\" is not known"},
        {{.pre_tokenizer = "{\"type\":\"Split\",\"pattern\":{\"Regex\":\"(\"},\"behavior\":"
                           "\"Isolated\",\"invert\":false}"},
         "regular expression \"(\""},
        {{.pre_tokenizer = "{\"type\":\"Split\",\"pattern\":{\"String\":\"a\"},\"behavior\":"
                           "\"Odd\",\"invert\":false}"},
         "the behavior \"Odd\" is not known"},
        {{.pre_tokenizer = FIRST_METASPACE,
          .normalizer = "{\"type\":\"Strip\",\"strip_left\":true,\"strip_right\":false}"},
         "that may take away the beginning"},
        {{.pre_tokenizer = FIRST_METASPACE,
          .normalizer = "{\"type\":\"Replace\",\"pattern\":{\"String\":\"a\"},\"content\":\"\"}"},
         "that may take away the beginning"},
        {{.pre_tokenizer = "{\"type\":\"Metaspace\",\"replacement\":\"__\"}"},
         "\"replacement\" is not one character"},
        {{.pre_tokenizer =
              "{\"type\":\"Metaspace\",\"replacement\":\"_\",\"prepend_scheme\":\"last\"}"},
         "\"last\""},
        {{.pre_tokenizer = "{\"type\":\"Metaspace\",\"replacement\":\"_\",\"add_prefix_space\":"
                           "false,\"prepend_scheme\":\"first\"}"},
         "contradicts"},
        {{.post_processor = "{\"type\":\"BertProcessing\"}"},
         "the type \"BertProcessing\" is not supported"},
        {{.post_processor =
              "{\"type\":\"Sequence\",\"processors\":[{\"type\":\"RobertaProcessing\"}]}"},
         "post_processor.processors[0]: the type \"RobertaProcessing\""},
        {{.post_processor =
              "{\"type\":\"TemplateProcessing\",\"single\":[],\"special_tokens\":{}}"},
         "no sequence A"},
        {{.post_processor =
              "{\"type\":\"TemplateProcessing\",\"single\":[{\"SpecialToken\":{\"id\":\"q\"}}]}"},
         "gives no ids for \"q\""},
        {{.decoder = "{\"type\":\"CTC\"}"}, "decoder: the type \"CTC\" is not supported"},
        {{.decoder = "{\"type\":\"Metaspace\",\"replacement\":\"_\",\"prepend_scheme\":\"last\"}"},
         "decoder: the prepend_scheme \"last\" is not known"},
        {{.decoder = "{\"type\":\"Metaspace\",\"replacement\":\"_\",\"add_prefix_space\":false,"
                     "\"prepend_scheme\":\"first\"}"},
         "decoder: add_prefix_space contradicts the prepend_scheme \"first\""},
        {{.decoder = "{\"type\":\"Strip\",\"content\":\"xy\",\"start\":1,\"stop\":0}"},
         "\"content\" is not one"},
    };
    CHECK_REFUSALS(state, list);
}

/* Of two fields of one name cJSON finds the first, and Python the last. */
static void test_repeated_fields(void **state) {
#define SPECIALS(entries) "\"pair\":[],\"special_tokens\":{" entries "}}"
#define ENTRY(ids) "\"<s>\":{\"id\":\"<s>\"," ids ",\"tokens\":[\"<s>\"]}"
#define SINGLE(fields)                                                                             \
    "{\"type\":\"TemplateProcessing\",\"single\":[{" fields                                        \
    "},{\"Sequence\":{\"id\":\"A\",\"type_id\":0}}],"
#define BEGIN "\"SpecialToken\":{\"id\":\"<s>\"}"
    static const refusal list[] = {
        {{.model = "{" VOCAB "," MERGES ",\"fuse_unk\":true,\"fuse_unk\":false}"},
         "model: the field \"fuse_unk\" is there twice"},
        {{.model = "{" VOCAB "," MERGES "," MERGES "}"},
         "model: the field \"merges\" is there twice"},
        {{.decoder = "null,\"decoder\":{\"type\":\"Fuse\"}"},
         "the field \"decoder\" is there twice"},
        {{.added = "[{\"id\":6,\"id\":9,\"content\":\"<s>\"," FLAGS "}]"},
         "added_tokens[0]: the field \"id\" is there twice"},
        {{.normalizer = "{\"type\":\"Prepend\",\"prepend\":\"_\",\"prepend\":\"-\"}"},
         "normalizer: the field \"prepend\" is there twice"},
        {{.normalizer = "{\"type\":\"Replace\",\"content\":\"x\","
                        "\"pattern\":{\"String\":\"a\",\"String\":\"b\"}}"},
         "normalizer: the field \"String\" is there twice"},
        {{.decoder = "{\"type\":\"ByteLevel\",\"type\":\"Fuse\"}"},
         "decoder: the field \"type\" is there twice"},
        {{.post_processor = "{\"type\":\"ByteLevel\",\"type\":\"Sequence\"}"},
         "post_processor: the field \"type\" is there twice"},
        {{.post_processor = SINGLE(BEGIN "," BEGIN) SPECIALS(ENTRY("\"ids\":[6]"))},
         "post_processor: the field \"SpecialToken\" is there twice"},
        {{.post_processor = SINGLE(BEGIN) SPECIALS(ENTRY("\"ids\":[6]") "," ENTRY("\"ids\":[5]"))},
         "post_processor: the field \"<s>\" is there twice"},
        {{.post_processor = SINGLE(BEGIN) SPECIALS(ENTRY("\"ids\":[6],\"ids\":[5]"))},
         "post_processor: the field \"ids\" is there twice"},
    };
    CHECK_REFUSALS(state, list);
#undef BEGIN
#undef SINGLE
#undef ENTRY
#undef SPECIALS
}

static void test_refused_files(void **state) {
    static const char *const texts[] = {
        "", "{", "[]", "{\"version\":\"2.0\"}", "{\"novel\":1}", "{\"model\":\"\xff\"}"};
    mq_tokenizer *tokenizer = NULL;
    temporary *folder = *state;
    mq_error err = {0};
    assert_int_equal(mq_tokenizer_open(&tokenizer, folder->path, &err),
                     MQ_ERR_INPUT); /* there is none */
    assert_non_null(strstr(err.file, "tokenizer.json"));
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        temporary_write(folder, "tokenizer.json", texts[i], strlen(texts[i]));
        err = (mq_error){0};
        assert_int_equal(mq_tokenizer_open(&tokenizer, folder->path, &err), MQ_ERR_INPUT);
        assert_non_null(strstr(err.file, "tokenizer.json"));
        assert_true(err.message[0] != '\0');
    }
    assert_null(tokenizer);
}

/* Every prefix of a good file is refused or, at the very end, taken; nothing crashes. */
static void test_truncated_files(void **state) {
    temporary *folder = *state;
    write_tokenizer(folder, &(parts){.post_processor = TEMPLATE});
    char whole[4096];
    FILE *file = fopen(temporary_path(folder, "tokenizer.json"), "rb");
    assert_non_null(file);
    size_t size = fread(whole, 1, sizeof whole, file);
    fclose(file);
    for (size_t cut = 0; cut < size; cut++) {
        mq_tokenizer *tokenizer = NULL;
        temporary_write(folder, "tokenizer.json", whole, cut);
        assert_int_equal(mq_tokenizer_open(&tokenizer, folder->path, NULL), MQ_ERR_INPUT);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(test_refused_models), TEST(test_refused_added_tokens), TEST(test_refused_steps),
        TEST(test_refused_files),  TEST(test_truncated_files),      TEST(test_repeated_fields),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
